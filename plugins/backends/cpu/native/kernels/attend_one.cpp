// SPDX-License-Identifier: Apache-2.0
// Attention of one token: keys and values stream past once, and serve all query heads that share them.
#include "kernels/attend.h"
#include "kernels/functions.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t KEYS = 32; // scored at a time; a multiple of W

struct Scratch {
    float* queries; // [heads, depth], scaled
    float* keys;    // [W, depth]
    float* scores;  // [heads, KEYS]
    float* scales;  // [KEYS] of values, where entries have any
    int64_t depth;
};

int64_t padded(int64_t dim) { return round_up(dim, W); }

Scratch divide(const tm_attend& attend, char* scratch) {
    const int64_t depth = padded(attend.head_dim);
    float* at = reinterpret_cast<float*>(scratch);
    float* scores = at + (folded(attend) + W) * depth;
    return {at, at + folded(attend) * depth, scores, scores + folded(attend) * KEYS, depth};
}

template <class T> void widen(const T* from, float* to, int64_t dim) {
    for (int64_t i = 0; i < dim; i += W) put(to + i, load_up_to(from + i, dim - i));
}

void load_queries(const tm_attend& attend, const Tensor& q, const Task& task, const Scratch& s) {
    const int64_t heads = folded(attend);
    with_activation_type(q.dtype, [&](auto type) {
        for (int64_t h = 0; h < heads; ++h) {
            const auto* from = q.row<decltype(type)>(task.token) + (task.head * heads + h) * attend.head_dim;
            float* to = s.queries + h * s.depth;
            widen(from, to, attend.head_dim);
            for (int64_t i = 0; i < s.depth; i += W) put(to + i, get<VF>(to + i) * attend.scale);
        }
    });
}

// Reads a byte of each cache line. Values are summed some columns at a time, an order in which no processor foresees what
// comes next; touched once from first to last, beside the keys, they are near when the sums want them. Instructions that
// fetch ahead do worse: a core has few places to note what it waits for, and its own prefetching needs none.
inline void touch(const char* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) {
        const char byte = from[i];
        __asm__ volatile("" : : "r"(byte));
    }
}

// Scores of up to W keys with every query head.
template <class C>
void score(const tm_attend& attend, const Run& run, const Run& values, int64_t done, int64_t count, const Scratch& s) {
    float scales[W] = {};
    for (int64_t k = 0; k < count; ++k) {
        const char* key = run.data + (done + k) * run.stride;
        touch(values.data + (done + k) * values.stride, attend.value_dim * static_cast<int64_t>(sizeof(C)));
        widen(reinterpret_cast<const C*>(key), s.keys + k * s.depth, attend.head_dim);
        if (SCALED<C>) scales[k] = entry_scale(key, attend.head_dim);
    }
    for (int64_t h = 0; h < folded(attend); ++h) {
        VF products[W];
        for (VF& one : products) one = zero();
        for (int64_t i = 0; i < s.depth; i += W) {
            const VF query = get<VF>(s.queries + h * s.depth + i);
#pragma GCC unroll 16
            for (int64_t k = 0; k < W; ++k) products[k] = fma(get<VF>(s.keys + k * s.depth + i), query, products[k]);
        }
        VF scores = sums(products);
        if (SCALED<C>) scores *= get<VF>(scales);
        if (attend.softcap != 0) scores = tanh_v(scores / attend.softcap) * attend.softcap;
        store_up_to(s.scores + h * KEYS + done, scores, count);
    }
}

// Turns scores into weights relative to the new maximum; what was summed before is brought down to it.
void weigh(Softmax& out, int64_t h, float* scores, int64_t count) {
    VF most = splat(out.highest[h]);
    for (int64_t i = 0; i < count; i += W) {
        VF some = get<VF>(scores + i);
        if (count - i < W)
            for (int64_t j = count - i; j < W; ++j) some[j] = NOTHING_YET;
        put(scores + i, some);
        most = max_v(most, some);
    }
    const float top = highest(most);
    if (top > out.highest[h]) {
        const float less = exp_v(splat(out.highest[h] - top))[0];
        out.total[h] *= less;
        for (int64_t i = 0; i < out.width; i += W) put(out.values + h * out.width + i, get<VF>(out.values + h * out.width + i) * less);
        out.highest[h] = top;
    }
    VF total = zero();
    for (int64_t i = 0; i < count; i += W) {
        const VF weight = exp_v(get<VF>(scores + i) - top);
        put(scores + i, weight);
        total += weight;
    }
    out.total[h] += sum(total);
}

// Adds the run's values, weighted, for HEADS query heads; COLUMNS vectors of sums for each stay in registers.
template <class C, int HEADS, int COLUMNS>
void add_values(const Run& run, const float* weights, Softmax& out, int64_t h, int64_t column, int64_t dim) {
    VF sums[HEADS][COLUMNS];
    for (int a = 0; a < HEADS; ++a)
        for (int c = 0; c < COLUMNS; ++c) sums[a][c] = get<VF>(out.values + (h + a) * out.width + column + c * W);
    const bool whole = column + COLUMNS * W <= dim;
    for (int64_t k = 0; k < run.count; ++k) {
        const C* value = reinterpret_cast<const C*>(run.data + k * run.stride) + column;
        VF v[COLUMNS];
        for (int c = 0; c < COLUMNS; ++c)
            v[c] = whole ? Element<C>::load(value + c * W)
                         : c * W < dim - column ? load_up_to(value + c * W, dim - column - c * W) : zero();
        for (int a = 0; a < HEADS; ++a) {
            const VF weight = splat(weights[a * KEYS + k]);
            for (int c = 0; c < COLUMNS; ++c) sums[a][c] = fma(weight, v[c], sums[a][c]);
        }
    }
    for (int a = 0; a < HEADS; ++a)
        for (int c = 0; c < COLUMNS; ++c) put(out.values + (h + a) * out.width + column + c * W, sums[a][c]);
}

template <class C, int HEADS> void add_all_values(const Run& run, const float* weights, Softmax& out, int64_t h, int64_t dim) {
    constexpr int COLUMNS = W == 16 || HEADS <= 2 ? 4 : 2; // sums that registers hold
    int64_t column = 0;
    for (; column + COLUMNS * W <= out.width; column += COLUMNS * W)
        add_values<C, HEADS, COLUMNS>(run, weights, out, h, column, dim);
    for (; column < out.width; column += W) add_values<C, HEADS, 1>(run, weights, out, h, column, dim);
}

// The values' scales go to the weights, of which there are fewer.
void scale_weights(const tm_attend& attend, const Run& values, const Scratch& s) {
    for (int64_t k = 0; k < round_up(values.count, W); ++k)
        s.scales[k] = k < values.count ? entry_scale(values.data + k * values.stride, entry_width(attend)) : 0.0f;
    for (int64_t h = 0; h < folded(attend); ++h)
        for (int64_t k = 0; k < values.count; k += W)
            put(s.scores + h * KEYS + k, get<VF>(s.scores + h * KEYS + k) * get<VF>(s.scales + k));
}

template <class C> void attend_run(const tm_attend& attend, const Run& keys, const Run& values, const Scratch& s, Softmax& out) {
    for (int64_t k = 0; k < keys.count; k += W) score<C>(attend, keys, values, k, minimum<int64_t>(W, keys.count - k), s);
    const int64_t heads = folded(attend);
    for (int64_t h = 0; h < heads; ++h) weigh(out, h, s.scores + h * KEYS, keys.count);
    if (SCALED<C>) scale_weights(attend, values, s);
    int64_t h = 0;
    for (; h + 4 <= heads; h += 4) add_all_values<C, 4>(values, s.scores + h * KEYS, out, h, attend.value_dim);
    for (; h + 2 <= heads; h += 2) add_all_values<C, 2>(values, s.scores + h * KEYS, out, h, attend.value_dim);
    for (; h < heads; ++h) add_all_values<C, 1>(values, s.scores + h * KEYS, out, h, attend.value_dim);
}

} // namespace

int64_t attend_one_scratch(const tm_attend& attend) {
    const int64_t depth = padded(attend.head_dim);
    return static_cast<int64_t>(sizeof(float)) * ((folded(attend) + W) * depth + (folded(attend) + 1) * KEYS);
}

void attend_one(const tm_attend& attend, const Call& call, const Task& task, Softmax& out, char* scratch) {
    const Scratch s = divide(attend, scratch);
    load_queries(attend, call.values[0], task, s);
    memset(s.keys, 0, static_cast<size_t>(W * s.depth) * sizeof(float)); // what lies there may be NaN
    with_cache_type(attend.cache.dtype, [&](auto cached) {
        for (int64_t key = task.first_key; key < task.last_key;) {
            const int64_t last = minimum(task.last_key, key + KEYS);
            const Run keys = run_at(attend, attend.cache.keys, *call.step, task, key, last);
            const Run values = run_at(attend, attend.cache.values, *call.step, task, key, last);
            attend_run<decltype(cached)>(attend, keys, values, s, out);
            key += keys.count;
        }
    });
}

} // namespace tramontane::TM_ISA
