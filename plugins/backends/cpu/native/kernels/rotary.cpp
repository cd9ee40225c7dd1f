// SPDX-License-Identifier: Apache-2.0
// Rotary embedding, and what stands around it: norms of queries and keys before, the cache write after.
#include "kernels/cache.h"
#include "kernels/kernels.h"
#include "kernels/norm.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t MOST_DIM = 1024; // head dimension; kernels.py refuses larger ones

struct Angles {
    const float *cos, *sin;
    int64_t pairs;
};

Angles angles_at(const Tensor& angles, int64_t token) {
    const float* row = angles.row<float>(token);
    const int64_t pairs = angles.width / 2;
    return {row, row + pairs, pairs};
}

// Feature i turns with feature i + pairs (GPT-NeoX, Llama).
template <class T, class C> void turn_halves(const T* x, const Angles& angles, C* y) {
    const int64_t pairs = angles.pairs;
    for (int64_t i = 0; i < pairs; i += W) {
        const int64_t left = pairs - i;
        const VF cos = load_up_to(angles.cos + i, left), sin = load_up_to(angles.sin + i, left);
        const VF a = load_up_to(x + i, left), b = load_up_to(x + pairs + i, left);
        // Rounded to the activations' type first: what the cache holds is what the sequence of ops would store.
        store_up_to(y + i, Element<T>::round(a * cos - b * sin), left);
        store_up_to(y + pairs + i, Element<T>::round(b * cos + a * sin), left);
    }
}

// Feature 2i turns with feature 2i + 1 (GPT-J, GLM, DeepSeek).
template <class T, class C> void turn_neighbours(const T* x, const Angles& angles, C* y) {
    for (int64_t i = 0; i < angles.pairs; i += W) {
        const int64_t left = minimum<int64_t>(angles.pairs - i, W);
        float both[2 * W], turned[2 * W];
        put(both, load_up_to(x + 2 * i, 2 * left));
        put(both + W, 2 * left > W ? load_up_to(x + 2 * i + W, 2 * left - W) : zero());
        float cos[W], sin[W];
        put(cos, load_up_to(angles.cos + i, left));
        put(sin, load_up_to(angles.sin + i, left));
        for (int j = 0; j < W; ++j) {
            turned[2 * j] = both[2 * j] * cos[j] - both[2 * j + 1] * sin[j];
            turned[2 * j + 1] = both[2 * j + 1] * cos[j] + both[2 * j] * sin[j];
        }
        store_up_to(y + 2 * i, Element<T>::round(get<VF>(turned)), 2 * left);
        if (2 * left > W) store_up_to(y + 2 * i + W, Element<T>::round(get<VF>(turned + W)), 2 * left - W);
    }
}

template <class T, class C>
void turn(const tm_rotate& rotate, const T* x, const Angles& angles, C* y) {
    if (rotate.interleaved) {
        turn_neighbours(x, angles, y);
    } else {
        turn_halves(x, angles, y);
    }
    const int64_t turned = 2 * angles.pairs;
    copy_entry(x + turned, y + turned, rotate.head_dim - turned);
}

template <class T, class C>
void norm_and_turn(const tm_rotate& rotate, const tm_norm& norm, const T* x, const Angles& angles, C* y) {
    if (norm.weight == nullptr) return turn(rotate, x, angles, y);
    T normed[MOST_DIM];
    rms_row(norm, x, normed, rotate.head_dim);
    turn(rotate, normed, angles, y);
}

// To the cache. The scale of whole numbers is known only once all of them are.
template <class T, class C>
void norm_turn_write(const tm_rotate& rotate, const tm_norm& norm, const T* x, const Angles& angles, C* y) {
    norm_and_turn(rotate, norm, x, angles, y);
}
template <class T>
void norm_turn_write(const tm_rotate& rotate, const tm_norm& norm, const T* x, const Angles& angles, i8* y) {
    T turned[MOST_DIM];
    norm_and_turn(rotate, norm, x, angles, turned);
    copy_entry(turned, y, rotate.head_dim);
}

int64_t row_bytes(const Tensor& q, const Tensor& k) { return 3 * (q.width + k.width) * size_of(q.dtype); }

} // namespace

void rope_angles(Worker& worker, const Call& call) {
    const tm_rope_angles& params = call.as<tm_rope_angles>();
    const Tensor &positions = call.values[0], &y = call.values[1];
    const int64_t width = 2 * params.pairs;
    worker.each(y.rows, rows_per_ticket(width * 8), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            float* row = y.row<float>(t);
            if (params.sections == nullptr) {
                memcpy(row, params.table + positions.row<int64_t>(0)[t] * width, static_cast<size_t>(width) * sizeof(float));
                continue;
            }
            int64_t first = 0; // multimodal rope: each range of pairs takes its position from another stream
            for (int64_t s = 0; s < params.streams; ++s) {
                const float* angles = params.table + positions.row<int64_t>(s)[t] * width;
                const size_t bytes = static_cast<size_t>(params.sections[s]) * sizeof(float);
                memcpy(row + first, angles + first, bytes);
                memcpy(row + params.pairs + first, angles + params.pairs + first, bytes);
                first += params.sections[s];
            }
        }
    });
}

void rotate(Worker& worker, const Call& call) {
    const tm_rotate& params = call.as<tm_rotate>();
    const Tensor &q = call.values[0], &k = call.values[1], &angles = call.values[2];
    worker.each(q.rows, rows_per_ticket(row_bytes(q, k)), [&](int64_t begin, int64_t end) {
        with_activation_type(q.dtype, [&](auto type) {
            using T = decltype(type);
            const int64_t dim = params.head_dim;
            for (int64_t t = begin; t < end; ++t) {
                const Angles at = angles_at(angles, t);
                for (int64_t h = 0; h < params.heads; ++h)
                    turn(params, q.row<T>(t) + h * params.q_apart, at, call.values[3].row<T>(t) + h * dim);
                for (int64_t g = 0; g < params.kv_heads; ++g)
                    turn(params, k.row<T>(t) + g * params.k_apart, at, call.values[4].row<T>(t) + g * dim);
            }
        });
    });
}

void rotate_write(Worker& worker, const Call& call) {
    const tm_rotate_write& params = call.as<tm_rotate_write>();
    const tm_rotate& rotate = params.rotate;
    const tm_cache& cache = params.cache;
    const Tensor &q = call.values[0], &k = call.values[1], &v = call.values[2], &angles = call.values[3];
    const int64_t* slots = call.step->groups[cache.group].slots;
    // By tokens and key heads: a single token's heads are shared by the threads too.
    const int64_t units = q.rows * rotate.kv_heads, fit = rows_per_ticket(row_bytes(q, k) / rotate.kv_heads);
    worker.each(units, maximum<int64_t>(1, minimum(fit, units / 2)), [&](int64_t begin, int64_t end) {
        with_activation_type(q.dtype, [&](auto type) {
            with_cache_type(cache.dtype, [&](auto cached) {
                using T = decltype(type);
                using C = decltype(cached);
                for (int64_t unit = begin; unit < end; ++unit) {
                    const int64_t t = unit / rotate.kv_heads, g = unit % rotate.kv_heads;
                    const Angles at = angles_at(angles, t);
                    for (int64_t h = g * rotate.heads / rotate.kv_heads; h < (g + 1) * rotate.heads / rotate.kv_heads; ++h)
                        norm_and_turn(rotate, params.q_norm, q.row<T>(t) + h * rotate.q_apart, at,
                                      call.values[4].row<T>(t) + h * rotate.head_dim);
                    norm_turn_write(rotate, params.k_norm, k.row<T>(t) + g * rotate.k_apart, at,
                                    entry<C>(cache.keys, cache.block_tokens, slots[t], g));
                    copy_entry(v.row<T>(t) + g * params.value_dim,
                               entry<C>(cache.values, cache.block_tokens, slots[t], g), params.value_dim);
                }
            });
        });
    });
}

void cache_write(Worker& worker, const Call& call) {
    const tm_cache_write& params = call.as<tm_cache_write>();
    const tm_cache& cache = params.cache;
    const Tensor &k = call.values[0], &v = call.values[1];
    const int64_t* slots = call.step->groups[cache.group].slots;
    worker.each(k.rows, rows_per_ticket(row_bytes(k, v)), [&](int64_t begin, int64_t end) {
        with_activation_type(k.dtype, [&](auto type) {
            with_cache_type(cache.dtype, [&](auto cached) {
                using T = decltype(type);
                using C = decltype(cached);
                for (int64_t t = begin; t < end; ++t)
                    for (int64_t g = 0; g < params.kv_heads; ++g) {
                        copy_entry(k.row<T>(t) + g * params.key_dim,
                                   entry<C>(cache.keys, cache.block_tokens, slots[t], g), params.key_dim);
                        copy_entry(v.row<T>(t) + g * params.value_dim,
                                   entry<C>(cache.values, cache.block_tokens, slots[t], g), params.value_dim);
                    }
            });
        });
    });
}

} // namespace tramontane::TM_ISA
