// SPDX-License-Identifier: Apache-2.0
// Attention over the paged cache: which tasks a step has, and what becomes of their results.
//
// A row with many tokens is cut along its tokens, a row with few along its keys: a lone decoding row over a long context
// then still keeps every thread busy. How a row is cut depends on the row alone. Parts along the keys are combined in
// order, in a second pass.
#include "kernels/attend.h"

#include "kernels/functions.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t KEYS_PER_PART = 512;

// How one row is cut.
struct RowCut {
    int64_t token, tokens, length; // first token in the step, tokens, keys
    int64_t first_key;             // that any of its tokens sees
    int64_t blocks;                // along its tokens
    int64_t parts;                 // along its keys; more than one only where blocks is one

    RowCut(const tm_attend& attend, const tm_step& step, int64_t row) {
        token = step.q_start[row];
        tokens = step.q_start[row + 1] - token;
        length = step.kv_len[row];
        first_key = attend.window == 0 ? 0 : maximum<int64_t>(0, length - tokens + 1 - attend.window);
        blocks = ceil_div(tokens, block_tokens(attend));
        parts = blocks == 1 ? ceil_div(length - first_key, KEYS_PER_PART) : 1;
    }

    int64_t units(const tm_attend& attend) const { return attend.kv_heads * blocks * parts; }
    // Floats of the partial results of one part: highest, total and values of each query.
    int64_t part_floats(const tm_attend& attend) const { return tokens * folded(attend) * (value_width(attend) + 2); }
    int64_t partial_floats(const tm_attend& attend) const {
        return parts > 1 ? attend.kv_heads * parts * part_floats(attend) : 0;
    }
};

Softmax softmax_at(const tm_attend& attend, float* memory, int64_t queries) {
    return {memory, memory + queries, memory + 2 * queries, value_width(attend)};
}

void clear(const Softmax& s, int64_t queries) {
    for (int64_t i = 0; i < queries; ++i) {
        s.highest[i] = NOTHING_YET;
        s.total[i] = 0;
    }
    memset(s.values, 0, static_cast<size_t>(queries * s.width) * sizeof(float));
}

// Finds rows for rising unit numbers: a worker's tickets only ever rise.
class Rows {
  public:
    Rows(const tm_attend& attend, const tm_step& step) : attend_(attend), step_(step) {}

    // The row of a unit; `unit` becomes its number within the row, `partial` where the row's partial results start.
    int64_t find(int64_t& unit, int64_t& partial) {
        while (true) {
            const RowCut cut(attend_, step_, row_);
            if (unit < first_ + cut.units(attend_)) break;
            first_ += cut.units(attend_);
            partial_ += cut.partial_floats(attend_);
            ++row_;
        }
        unit -= first_;
        partial = partial_;
        return row_;
    }

  private:
    const tm_attend& attend_;
    const tm_step& step_;
    int64_t row_ = 0, first_ = 0, partial_ = 0;
};

class Attention {
  public:
    Attention(const tm_attend& attend, const Call& call, Worker& worker)
        : attend_(attend), call_(call), step_(*call.step), rows_(attend, step_),
          partials_(reinterpret_cast<float*>(worker.shared())), own_(worker.own()) {}

    void unit(int64_t index) {
        int64_t partial;
        const int64_t row = rows_.find(index, partial);
        const RowCut cut(attend_, step_, row);
        const int64_t heads = folded(attend_);
        const int64_t head = index % attend_.kv_heads, piece = index / attend_.kv_heads;
        const int64_t block = cut.blocks - 1 - (cut.blocks > 1 ? piece : 0); // the last tokens see most: they go first
        const int64_t first = block * block_tokens(attend_);
        Task task;
        task.row = row;
        task.head = head;
        task.token = cut.token + first;
        task.tokens = minimum(block_tokens(attend_), cut.tokens - first);
        task.position = cut.length - cut.tokens + first;
        task.last_key = task.position + task.tokens;
        task.first_key = attend_.window == 0 ? 0 : maximum<int64_t>(0, task.position + 1 - attend_.window);
        const int64_t queries = task.tokens * heads;
        float* memory = reinterpret_cast<float*>(own_);
        if (cut.parts > 1) {
            task.first_key += piece * KEYS_PER_PART;
            task.last_key = minimum(task.last_key, task.first_key + KEYS_PER_PART);
            memory = partials_ + partial + (head * cut.parts + piece) * cut.part_floats(attend_);
        }
        Softmax out = softmax_at(attend_, memory, queries);
        clear(out, queries);
        char* scratch = own_ + BLOCK_QUERIES * (value_width(attend_) + 2) * static_cast<int64_t>(sizeof(float));
        if (cut.tokens == 1) {
            attend_one(attend_, call_, task, out, scratch);
        } else {
            attend_block(attend_, call_, task, out, scratch);
        }
        if (cut.parts == 1) finish(task, out);
    }

    // Combines the parts of one row and key/value head, first to last.
    void combine(int64_t row, int64_t head) {
        const RowCut cut(attend_, step_, row);
        if (cut.parts == 1) return;
        const int64_t queries = cut.tokens * folded(attend_), floats = cut.part_floats(attend_);
        float* first = partials_ + partial_of(row) + head * cut.parts * floats;
        const Softmax all = softmax_at(attend_, first, queries);
        for (int64_t p = 1; p < cut.parts; ++p) {
            const Softmax part = softmax_at(attend_, first + p * floats, queries);
            for (int64_t i = 0; i < queries; ++i) merge(all, part, i);
        }
        finish({row, head, cut.token, cut.tokens, 0, 0, 0}, all);
    }

  private:
    int64_t partial_of(int64_t row) const {
        int64_t floats = 0;
        for (int64_t r = 0; r < row; ++r) floats += RowCut(attend_, step_, r).partial_floats(attend_);
        return floats;
    }

    static void merge(const Softmax& all, const Softmax& part, int64_t i) {
        const float top = maximum(all.highest[i], part.highest[i]);
        const float a = exp_v(splat(all.highest[i] - top))[0], b = exp_v(splat(part.highest[i] - top))[0];
        for (int64_t e = 0; e < all.width; e += W) {
            float* to = all.values + i * all.width + e;
            put(to, get<VF>(to) * a + get<VF>(part.values + i * all.width + e) * b);
        }
        all.total[i] = all.total[i] * a + part.total[i] * b;
        all.highest[i] = top;
    }

    // Divides by the sum, to which a sink adds a weight without a value, and stores.
    void finish(const Task& task, const Softmax& out) {
        const int64_t heads = folded(attend_), dim = attend_.value_dim;
        const Tensor& y = call_.values[1];
        for (int64_t i = 0; i < task.tokens * heads; ++i) {
            const int64_t head = task.head * heads + i % heads;
            float total = out.total[i];
            if (attend_.sinks != nullptr) total += exp_v(splat(attend_.sinks[head] - out.highest[i]))[0];
            with_activation_type(y.dtype, [&](auto type) {
                auto* to = y.row<decltype(type)>(task.token + i / heads) + head * dim;
                const float* values = out.values + i * out.width;
                for (int64_t e = 0; e < dim; e += W) store_up_to(to + e, get<VF>(values + e) / total, dim - e);
            });
        }
    }

    const tm_attend& attend_;
    const Call& call_;
    const tm_step& step_;
    Rows rows_;
    float* partials_;
    char* own_;
};

} // namespace

Need attend_need(const Call& call) {
    const tm_attend& attend = call.as<tm_attend>();
    const tm_step& step = *call.step;
    Need need;
    bool blocks = false;
    for (int64_t row = 0; row < step.rows; ++row) {
        const RowCut cut(attend, step, row);
        need.shared += cut.partial_floats(attend) * static_cast<int64_t>(sizeof(float));
        blocks = blocks || cut.tokens > 1;
    }
    const int64_t results = BLOCK_QUERIES * (value_width(attend) + 2) * static_cast<int64_t>(sizeof(float));
    need.own = results + maximum(attend_one_scratch(attend), blocks ? attend_block_scratch(attend) : 0);
    return need;
}

void attend(Worker& worker, const Call& call) {
    const tm_attend& attend = call.as<tm_attend>();
    const tm_step& step = *call.step;
    int64_t units = 0;
    bool parted = false;
    for (int64_t row = 0; row < step.rows; ++row) {
        const RowCut cut(attend, step, row);
        units += cut.units(attend);
        parted = parted || cut.parts > 1;
    }
    Attention attention(attend, call, worker);
    worker.each(units, 1, [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) attention.unit(unit);
    });
    if (parted)
        worker.each(step.rows * attend.kv_heads, 1, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) attention.combine(i / attend.kv_heads, i % attend.kv_heads);
        });
    const Tensor& y = call.values[1];
    const int64_t used = step.q_start[step.rows]; // padding tokens belong to no row; nobody reads them, but no NaN either
    worker.each(y.rows - used, 64, [&](int64_t begin, int64_t end) {
        for (int64_t t = used + begin; t < used + end; ++t) memset(y.row<char>(t), 0, static_cast<size_t>(y.width * size_of(y.dtype)));
    });
}

} // namespace tramontane::TM_ISA
