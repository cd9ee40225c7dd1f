// SPDX-License-Identifier: Apache-2.0
// Latent attention (DeepSeek): the cache keeps one latent and one rotated key per token, for all heads. Each head's key
// matrix is moved to its queries and its value matrix behind the sum, so that what remains is attention over the cache
// itself: one key head, whose first features are its value too.
#include "kernels/attend.h"
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t ROWS = 64;          // of one head, multiplied at a time
constexpr int64_t MOST_LATENT = 1024; // features of an entry; kernels/latent.py refuses larger ones

int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }

// Shared scratch behind that of the attention proper.
struct Room {
    Tensor queries, sums; // [tokens, heads * (rank + rotated)], [tokens, heads * rank]
    int64_t attention, bytes;
};

Call inner(const Call& call, const Room& room) {
    Call made = {};
    made.params = &call.as<tm_attend_latent>().attend;
    made.step = call.step;
    made.values[0] = room.queries, made.values[1] = room.sums;
    return made;
}

Room divide(const Call& call, char* memory) {
    const tm_attend& attend = call.as<tm_attend_latent>().attend;
    const Tensor& q = call.values[0];
    Room room;
    const int64_t width = attend.heads * attend.head_dim, sum_width = attend.heads * attend.value_dim;
    room.queries = {nullptr, q.rows, width, width * size_of(q.dtype), q.dtype};
    room.sums = {nullptr, q.rows, sum_width, sum_width * 4, TM_F32};
    room.attention = aligned(attend_need(inner(call, room)).shared);
    room.queries.data = memory + room.attention;
    room.sums.data = room.queries.data + aligned(q.rows * room.queries.stride);
    room.bytes = room.attention + aligned(q.rows * room.queries.stride) + aligned(q.rows * room.sums.stride);
    return room;
}

int64_t result_bytes(const tm_matrix& matrix) { return ROWS * panels_of(matrix) * PANEL * 4; }
int64_t product_bytes(const tm_matrix& matrix) { return aligned(result_bytes(matrix)) + ROWS * depth_of(matrix) * 4; }

template <class To, class From> void pad_row(const From* from, int64_t width, int64_t depth, To* to) {
    for (int64_t i = 0; i < depth; i += W) Element<To>::store(to + i, i < width ? load_up_to(from + i, width - i) : zero());
}

// Up to ROWS rows of one head's features times its matrix: float32 [rows, panels * 16] in `scratch`.
const float* product(const tm_matrix& matrix, const Tensor& x, int64_t feature, int64_t row, int64_t rows, char* scratch) {
    const Layout& layout = layout_of(matrix);
    const Form form = layout.form(matrix, x.dtype, x.rows);
    const int64_t depth = depth_of(matrix), stride = depth * (form == FORM_BF16 ? 2 : 4);
    char* made = scratch + aligned(result_bytes(matrix));
    with_activation_type(x.dtype, [&](auto type) {
        using T = decltype(type);
        for (int64_t r = 0; r < rows; ++r) {
            const T* from = x.row<T>(row + r) + feature;
            if (form == FORM_BF16) {
                pad_row(from, matrix.inputs, depth, reinterpret_cast<bf16*>(made + r * stride));
            } else {
                pad_row(from, matrix.inputs, depth, reinterpret_cast<float*>(made + r * stride));
            }
        }
    });
    float* results = reinterpret_cast<float*>(scratch);
    const Panels panels = layout.open(matrix, 0, panels_of(matrix), rows, form, nullptr);
    panels.multiply(panels, {made, stride, rows}, 0, rows, results, panels_of(matrix) * PANEL);
    return results;
}

// Runs f(head, first row, rows) over all of them.
template <class F> void blocks(Worker& worker, int64_t heads, int64_t rows, F&& f) {
    worker.each(heads * ceil_div(rows, ROWS), 1, [&](int64_t unit, int64_t) {
        const int64_t row = unit / heads * ROWS;
        f(unit % heads, row, minimum(ROWS, rows - row));
    });
}

template <class T> void copy_floats(const float* from, T* to, int64_t width) {
    for (int64_t i = 0; i < width; i += W) store_up_to(to + i, load_up_to(from + i, width - i), width - i);
}

} // namespace

Need attend_latent_need(const Call& call) {
    const tm_attend_latent& latent = call.as<tm_attend_latent>();
    const Room room = divide(call, nullptr);
    const int64_t products = maximum(product_bytes(latent.keys[0]), product_bytes(latent.values[0]));
    return {room.bytes, maximum(attend_need(inner(call, room)).own, products)};
}

void attend_latent(Worker& worker, const Call& call) {
    const tm_attend_latent& latent = call.as<tm_attend_latent>();
    const tm_attend& attention = latent.attend;
    const Tensor &q = call.values[0], &turned = call.values[1], &y = call.values[2];
    if (q.rows == 0) return;
    const Room room = divide(call, worker.shared());
    blocks(worker, attention.heads, q.rows, [&](int64_t head, int64_t first, int64_t rows) {
        const tm_matrix& matrix = latent.keys[head];
        const float* made = product(matrix, q, head * latent.q_apart, first, rows, worker.own());
        with_activation_type(q.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t r = 0; r < rows; ++r) {
                T* to = room.queries.row<T>(first + r) + head * attention.head_dim;
                copy_floats(made + r * panels_of(matrix) * PANEL, to, attention.value_dim);
                copy_entry(turned.row<T>(first + r) + head * latent.turned_apart, to + attention.value_dim,
                           attention.head_dim - attention.value_dim);
            }
        });
    });
    attend(worker, inner(call, room));
    blocks(worker, attention.heads, q.rows, [&](int64_t head, int64_t first, int64_t rows) {
        const tm_matrix& matrix = latent.values[head];
        const float* made = product(matrix, room.sums, head * attention.value_dim, first, rows, worker.own());
        with_activation_type(y.dtype, [&](auto type) {
            for (int64_t r = 0; r < rows; ++r)
                copy_floats(made + r * panels_of(matrix) * PANEL, y.row<decltype(type)>(first + r) + head * matrix.outputs,
                            matrix.outputs);
        });
    });
}

void latent_write(Worker& worker, const Call& call) {
    const tm_latent_write& params = call.as<tm_latent_write>();
    const tm_cache& cache = params.cache;
    const Tensor &latent = call.values[0], &key = call.values[1];
    const int64_t* slots = call.step->groups[cache.group].slots;
    worker.each(latent.rows, rows_per_ticket((latent.width + key.width) * 4), [&](int64_t begin, int64_t end) {
        with_activation_type(latent.dtype, [&](auto type) {
            with_cache_type(cache.dtype, [&](auto cached) {
                using T = decltype(type);
                T both[MOST_LATENT];
                for (int64_t t = begin; t < end; ++t) {
                    memcpy(both, latent.row<T>(t), static_cast<size_t>(latent.width) * sizeof(T));
                    memcpy(both + latent.width, key.row<T>(t), static_cast<size_t>(key.width) * sizeof(T));
                    auto* to = entry<decltype(cached)>(cache.keys, cache.block_tokens, slots[t], 0);
                    copy_entry(both, to, latent.width + key.width);
                }
            });
        });
    });
}

} // namespace tramontane::TM_ISA
