// SPDX-License-Identifier: Apache-2.0
// Attention of many tokens: scores and weighted values are products with panels, the keys and the values of a range of
// positions being the "weights". Both are brought to the panel layout once and serve all the task's queries; from there
// on the products are those of kernels/layouts, tiles and dot products of pairs included.
#include "kernels/attend.h"
#include "kernels/functions.h"
#include "kernels/layouts/panels.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t KEYS = 128; // at a time: a multiple of PANEL and DEPTH
constexpr int64_t GROUP = 48; // queries whose scores are kept at a time: a multiple of every tile's rows

// Everything a task works in, cut from one piece of scratch.
struct Room {
    int64_t depth; // head dimension, padded
    char* queries; // [BLOCK_QUERIES, depth]
    char* keys;    // panels [KEYS / 16][depth][16]
    char* values;  // panels [width / 16][KEYS][16]
    char* weights; // [GROUP, KEYS]
    float* scores; // [GROUP, KEYS]
    float* added;  // [GROUP, width]
    float *key_scales, *value_scales; // [KEYS], where entries have any
    int64_t bytes;
};

Room divide(const tm_attend& attend, int64_t element, char* scratch) {
    Room room;
    int64_t used = 0;
    auto take = [&](int64_t bytes) {
        char* piece = scratch + used;
        used += round_up(bytes, 64);
        return piece;
    };
    const int64_t width = value_width(attend);
    room.depth = round_up(attend.head_dim, DEPTH);
    room.queries = take(BLOCK_QUERIES * room.depth * element);
    room.keys = take(KEYS * room.depth * element);
    room.values = take(KEYS * width * element);
    room.weights = take(GROUP * KEYS * element);
    room.scores = reinterpret_cast<float*>(take(GROUP * KEYS * 4));
    room.added = reinterpret_cast<float*>(take(GROUP * width * 4));
    room.key_scales = reinterpret_cast<float*>(take(KEYS * 4));
    room.value_scales = reinterpret_cast<float*>(take(KEYS * 4));
    room.bytes = used;
    return room;
}

// Some positions: the first, and how many.
struct Range {
    int64_t first, count;
};

// E is the type of the products' operands: bf16 where queries are, the cache has nothing finer, and the processor
// multiplies it.
template <class E> class Block {
  public:
    Block(const tm_attend& attend, const Call& call, const Task& task, Softmax& out, char* scratch)
        : attend_(attend), call_(call), task_(task), out_(out), room_(divide(attend, sizeof(E), scratch)),
          heads_(folded(attend)), queries_(task.tokens * heads_), scales_(attend.cache.dtype == TM_I8) {}

    void run() {
        load_queries();
        for (int64_t key = task_.first_key; key < task_.last_key; key += KEYS) {
            const Range range = {key, minimum(KEYS, task_.last_key - key)};
            const int64_t padded = round_up(range.count, DEPTH);
            with_cache_type(attend_.cache.dtype, [&](auto cached) {
                pack_keys<decltype(cached)>(range);
                pack_values<decltype(cached)>(range, padded);
            });
            for (int64_t first = 0; first < queries_; first += GROUP) add_group(first, minimum(GROUP, queries_ - first), range);
        }
    }

  private:
    // Query i is head i % heads of token i / heads.
    void load_queries() {
        const Tensor& q = call_.values[0];
        with_activation_type(q.dtype, [&](auto type) {
            for (int64_t i = 0; i < queries_; ++i) {
                const auto* from = q.row<decltype(type)>(task_.token + i / heads_) +
                                   (task_.head * heads_ + i % heads_) * attend_.head_dim;
                E* to = reinterpret_cast<E*>(room_.queries) + i * room_.depth;
                for (int64_t d = 0; d < room_.depth; d += W) {
                    const int64_t left = attend_.head_dim - d;
                    Element<E>::store(to + d, left > 0 ? load_up_to(from + d, left) : zero());
                }
            }
        });
    }

    template <class C> void pack_keys(const Range& range) {
        for (int64_t k = 0; k < range.count;) {
            const Run run = run_at(attend_, attend_.cache.keys, *call_.step, task_, range.first + k, range.first + range.count);
            for (int64_t i = 0; i < run.count; ++i, ++k) {
                const char* key = run.data + i * run.stride;
                pack_output(reinterpret_cast<const C*>(key), attend_.head_dim, room_.depth, k, reinterpret_cast<E*>(room_.keys));
                if (SCALED<C>) room_.key_scales[k] = entry_scale(key, attend_.head_dim);
            }
        }
        if (SCALED<C>) memset(room_.key_scales + range.count, 0, static_cast<size_t>(KEYS - range.count) * sizeof(float));
    }

    template <class C> void pack_values(const Range& range, int64_t padded) {
        E* to = reinterpret_cast<E*>(room_.values);
        for (int64_t k = 0; k < range.count;) {
            const Run run = run_at(attend_, attend_.cache.values, *call_.step, task_, range.first + k, range.first + range.count);
            for (int64_t i = 0; i < run.count; ++i, ++k) {
                const char* value = run.data + i * run.stride;
                pack_input(reinterpret_cast<const C*>(value), attend_.value_dim, k, KEYS, out_.width / PANEL, to);
                if (SCALED<C>) room_.value_scales[k] = entry_scale(value, entry_width(attend_));
            }
        }
        if (SCALED<C>) memset(room_.value_scales + range.count, 0, static_cast<size_t>(KEYS - range.count) * sizeof(float));
        for (int64_t k = range.count; k < padded; ++k) // their weights are zero, but zero times NaN is not
            pack_input<E, C>(nullptr, 0, k, KEYS, out_.width / PANEL, to);
    }

    // Adds what some queries see of a range. Panels that the future hides from all of them are left out.
    void add_group(int64_t first, int64_t count, const Range& range) {
        const int64_t last = task_.position + (first + count - 1) / heads_; // position of the last query
        const int64_t seen = minimum(range.count, last + 1 - range.first), padded = round_up(seen, DEPTH);
        if (seen <= 0) return;
        const Panels keys = panels(room_.keys, room_.depth, room_.depth, ceil_div(seen, PANEL));
        keys.multiply(keys, rows(room_.queries, room_.depth), first, count, room_.scores, KEYS);
        float less[GROUP]; // what is left of each query's sums so far
        for (int64_t i = 0; i < count; ++i) less[i] = weigh(first + i, i, range, padded);
        const Panels values = panels(room_.values, KEYS, padded, out_.width / PANEL);
        values.multiply(values, rows(room_.weights, KEYS), 0, count, room_.added, out_.width);
        for (int64_t i = 0; i < count; ++i) add(first + i, i, less[i]);
    }

    Panels panels(const char* data, int64_t apart, int64_t depth, int64_t count) const {
        constexpr Form form = sizeof(E) == 2 ? FORM_BF16 : FORM_F32;
        return {data, apart * PANEL * static_cast<int64_t>(sizeof(E)), count, depth, pick_multiply<E>(queries_, form)};
    }

    Activations rows(const char* data, int64_t width) const {
        return {data, width * static_cast<int64_t>(sizeof(E)), queries_};
    }

    VF scaled(VF score) const {
        score *= attend_.scale;
        return attend_.softcap == 0 ? score : tanh_v(score / attend_.softcap) * attend_.softcap;
    }

    // Turns the scores of query i, the group's `in_group`-th, into weights relative to the new maximum; keys that it does
    // not see weigh nothing. Gives what the old maximum's weights become.
    float weigh(int64_t i, int64_t in_group, const Range& range, int64_t padded) {
        const int64_t position = task_.position + i / heads_;
        const int64_t start = attend_.window == 0 ? 0 : maximum<int64_t>(0, position + 1 - attend_.window);
        const int64_t first = maximum<int64_t>(0, start - range.first);
        const int64_t last = minimum(range.count, position + 1 - range.first);
        float* scores = room_.scores + in_group * KEYS;
        E* weights = reinterpret_cast<E*>(room_.weights) + in_group * KEYS;
        if (first >= last) {
            memset(weights, 0, static_cast<size_t>(padded) * sizeof(E));
            return 1.0f;
        }
        VF most = splat(out_.highest[i]);
        for (int64_t k = 0; k < padded; k += W) {
            const VF raw = scales_ ? get<VF>(scores + k) * get<VF>(room_.key_scales + k) : get<VF>(scores + k);
            const VF score = hide(scaled(raw), first - k, last - k);
            put(scores + k, score);
            most = max_v(most, score);
        }
        const float top = highest(most);
        const float less = exp_v(splat(out_.highest[i] - top))[0];
        VF total = zero();
        for (int64_t k = 0; k < padded; k += W) {
            const VF weight = exp_v(get<VF>(scores + k) - top);
            Element<E>::store(weights + k, scales_ ? weight * get<VF>(room_.value_scales + k) : weight);
            total += weight;
        }
        out_.highest[i] = top;
        out_.total[i] = out_.total[i] * less + sum(total);
        return less;
    }

    // The score in lanes [first, last), nothing in the others.
    static VF hide(VF score, int64_t first, int64_t last) {
        if (first <= 0 && last >= W) return score;
        const VF lane = LANES;
        const VF from = splat(static_cast<float>(first)), to = splat(static_cast<float>(last));
        return lane < from ? splat(NOTHING_YET) : lane < to ? score : splat(NOTHING_YET);
    }

    void add(int64_t i, int64_t in_group, float less) {
        float* values = out_.values + i * out_.width;
        const float* added = room_.added + in_group * out_.width;
        for (int64_t e = 0; e < out_.width; e += W)
            put(values + e, fma(get<VF>(values + e), splat(less), get<VF>(added + e)));
    }

    const tm_attend& attend_;
    const Call& call_;
    const Task& task_;
    Softmax& out_;
    Room room_;
    int64_t heads_, queries_;
    bool scales_; // of entries
};

bool in_pairs(const tm_attend& attend, const Call& call) {
#if defined(__AVX512BF16__)
    const int32_t cached = attend.cache.dtype;
    return (cached == TM_BF16 || cached == TM_F8 || cached == TM_I8) && call.values[0].dtype == TM_BF16;
#else
    (void)attend;
    (void)call;
    return false;
#endif
}

} // namespace

int64_t attend_block_scratch(const tm_attend& attend) { return divide(attend, sizeof(float), nullptr).bytes; }

void attend_block(const tm_attend& attend, const Call& call, const Task& task, Softmax& out, char* scratch) {
    if (in_pairs(attend, call)) {
        Block<bf16>(attend, call, task, out, scratch).run();
    } else {
        Block<float>(attend, call, task, out, scratch).run();
    }
}

} // namespace tramontane::TM_ISA
