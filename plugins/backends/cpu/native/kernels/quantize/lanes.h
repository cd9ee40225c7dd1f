// SPDX-License-Identifier: Apache-2.0
// Quantizers work on W blocks at a time, each in a lane of its own: what is written for one block serves them all, and a
// sum over a block's elements has an order that does not depend on the width of vectors. That order, and every formula,
// is that of the forms in Python, so that both make the same bytes: no product is fused with a sum here.
//
// Element i of all blocks is a vector at W * i of an array of floats.
#pragma once
#include "kernels/simd.h"

namespace tramontane::TM_ISA {

using Byte = uint8_t;

constexpr float HALVES_TO_EVEN = 12582912.0f; // 1.5 * 2^23: numbers below 2^22 are rounded by adding it and taking it away

inline VF at(const float* values, int i) { return get<VF>(values + i * W); }
inline void set(float* values, int i, VF v) { put(values + i * W, v); }
inline VF abs_v(VF v) { return (VF)((VU)v & 0x7fffffff); }

inline VF sqrt_v(VF v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(v);
#else
    for (int i = 0; i < W; ++i) v[i] = sqrtf(v[i]);
    return v;
#endif
}

// A quotient, 0 where `below` is.
inline VF quotient(VF above, VF below) { return below == zero() ? zero() : above / below; }

inline VF bounded(VF v, float least, float most) { return min_v(max_v(v, splat(least)), splat(most)); } // NaN: least

// To the nearest whole number, halves to even, within bounds; NaN becomes the least.
inline VF rounded(VF v, float least, float most) {
    return bounded((v + splat(HALVES_TO_EVEN)) - splat(HALVES_TO_EVEN), least, most);
}

// Towards zero, from numbers that are not below it.
inline VF truncated(VF v) { return __builtin_convertvector(__builtin_convertvector(v, VI), VF); }

inline VF as_half(VF v) { return widen_f16(narrow_f16(v)); }

inline bool any(VI mask) {
    int32_t found = 0;
    for (int i = 0; i < W; ++i) found |= mask[i];
    return found != 0;
}

// The sums over elements 0 to N of what f gives for each, K numbers: the upper half is added to the lower until one is
// left.
template <int K> struct Sums {
    VF of[K];
};
template <int I, int STEP, int N, int K, class F> __attribute__((always_inline)) inline Sums<K> sum_from(F&& f) {
    if constexpr (STEP == N) {
        return f(I);
    } else {
        Sums<K> a = sum_from<I, 2 * STEP, N, K>(f);
        const Sums<K> b = sum_from<I + STEP, 2 * STEP, N, K>(f);
        for (int k = 0; k < K; ++k) a.of[k] = a.of[k] + b.of[k];
        return a;
    }
}
template <int N, int K, class F> __attribute__((always_inline)) inline Sums<K> totals(F&& f) {
    return sum_from<0, 1, N, K>(f);
}
template <int N, class F> __attribute__((always_inline)) inline VF total(F&& f) {
    return sum_from<0, 1, N, 1>([&](int i) __attribute__((always_inline)) { return Sums<1>{{f(i)}}; }).of[0];
}

// The value of largest magnitude, the first of equals.
template <int N> inline VF most_extreme(const float* values) {
    VF best = at(values, 0), largest = abs_v(best);
    for (int i = 1; i < N; ++i) {
        const VF value = at(values, i), size = abs_v(value);
        best = size > largest ? value : best;
        largest = size > largest ? size : largest;
    }
    return best;
}

// The whole numbers of every block, each as a byte: W rows of N. `shift` is added first.
template <int N> inline void as_bytes(const float* values, float shift, Byte* rows) {
    static_assert(N % 4 == 0, "bytes are put together in fours");
    for (int i = 0; i < N; i += 4) {
        VI four = {};
        for (int j = 3; j >= 0; --j) four = four << 8 | (__builtin_convertvector(at(values, i + j) + splat(shift), VI) & 255);
        for (int lane = 0; lane < W; ++lane) {
            const int32_t one = four[lane];
            memcpy(rows + lane * N + i, &one, 4);
        }
    }
}

// Float16 numbers of every block, stored where a block begins plus `offset`.
inline void put_halves(VF values, Byte* const* blocks, int offset, int lanes) {
    const VH halves = narrow_f16(values);
    for (int lane = 0; lane < lanes; ++lane) {
        const uint16_t half = halves[lane];
        memcpy(blocks[lane] + offset, &half, 2);
    }
}

} // namespace tramontane::TM_ISA
