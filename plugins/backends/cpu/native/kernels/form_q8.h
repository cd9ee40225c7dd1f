// SPDX-License-Identifier: Apache-2.0
// Activations as whole numbers of eight bits with a scale per 32 inputs: FORM_Q8. A row is its codes, then a BlockOfX for
// each block. Rounding to the nearest of 255 steps of a block's largest magnitude costs at most 0.4 % of that.
#pragma once
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

constexpr int64_t BLOCK = 32;

// What goes with the 32 codes of a block: their scale, and their sum (of each half, and of all) times it.
struct BlockOfX {
    float scale, halves[2], sum;
};

inline int64_t q8_row_bytes(int64_t width) {
    const int64_t blocks = ceil_div(width, BLOCK);
    return spaced(blocks * (BLOCK + static_cast<int64_t>(sizeof(BlockOfX))));
}

// Whole numbers in [-127, 127] to bytes: a block's.
inline void put_codes(int8_t* to, const VI (&whole)[BLOCK / W]) {
#if defined(__AVX512F__)
    for (int i = 0; i < BLOCK / W; ++i)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * W), _mm512_cvtepi32_epi8((__m512i)whole[i]));
#elif defined(__AVX2__)
    // Packing stays within halves of 128 bits: four numbers of each vector alternate, until the last step.
    const __m256i low = _mm256_packs_epi32((__m256i)whole[0], (__m256i)whole[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)whole[2], (__m256i)whole[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    put(to, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
#else
    for (int i = 0; i < BLOCK / W; ++i)
        for (int j = 0; j < W; ++j) to[i * W + j] = static_cast<int8_t>(whole[i][j]);
#endif
}

// Rounds one block; the elements past the row's end are zero.
inline BlockOfX quantize_block(const VF* values, int8_t* codes) {
    constexpr int COUNT = BLOCK / W;
    VF largest = zero();
    for (int i = 0; i < COUNT; ++i) largest = max_v(largest, max_v(values[i], zero() - values[i]));
    const float top = highest(largest);
    const VF factor = splat(top > 0 ? 127.0f / top : 0.0f), magic = splat(12582912.0f); // 1.5 * 2^23: see exp_v
    VF halves[2] = {zero(), zero()};
    VI whole[COUNT];
    for (int i = 0; i < COUNT; ++i) {
        const VF shifted = values[i] * factor + magic;
        whole[i] = (VI)shifted - (VI)magic;
        halves[2 * i / COUNT] += shifted - magic;
    }
    put_codes(codes, whole);
    BlockOfX made;
    made.scale = top / 127.0f;
    for (int h = 0; h < 2; ++h) made.halves[h] = sum(halves[h]) * made.scale;
    made.sum = made.halves[0] + made.halves[1];
    return made;
}

template <class From> inline void quantize_row(const From* from, char* to, int64_t width) {
    const int64_t blocks = ceil_div(width, BLOCK);
    BlockOfX* made = reinterpret_cast<BlockOfX*>(to + blocks * BLOCK);
    VF poison = zero(); // not a number as soon as one element is none, or infinite
    for (int64_t b = 0; b < blocks; ++b) {
        VF values[BLOCK / W];
        for (int64_t i = 0; i < BLOCK / W; ++i) {
            const int64_t at = b * BLOCK + i * W;
            values[i] = at < width ? load_up_to(from + at, width - at) : zero();
            poison = poison + values[i] * zero();
        }
        made[b] = quantize_block(values, reinterpret_cast<int8_t*>(to) + b * BLOCK);
    }
    const float bad = sum(poison);
    if (bad != bad)
        for (int64_t b = 0; b < blocks; ++b) made[b].scale = made[b].sum = bad;
}

} // namespace tramontane::TM_ISA
