// SPDX-License-Identifier: Apache-2.0
// Rows of those ggml blocks (https://github.com/ggml-org/ggml) whose codes are rows of a table of short vectors: the IQ1,
// IQ2 and IQ3 types. Tables are given; values are those of the types' own codecs, bit for bit.
#pragma once
#include "kernels/simd.h"

namespace tramontane::TM_ISA {

inline float half_at(const uint8_t* at) {
    f16 half;
    memcpy(&half, at, sizeof half);
    return to_float(half);
}

inline uint32_t word_at(const uint8_t* at, size_t bytes) {
    uint32_t word = 0;
    memcpy(&word, at, bytes); // little-endian, as the files are
    return word;
}

// The eighth sign makes the number of minus signs even.
inline uint32_t even_signs(uint32_t seven) {
    uint32_t parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    return seven | ((parity ^ parity >> 1) & 1) << 7;
}

// Eight elements: `count` of each row, with a scale and signs, the first in the lowest bit.
inline void put_signed(float scale, const float* vector, uint32_t signs, int first, int count, float* to) {
    for (int e = 0; e < count; ++e) {
        const float value = scale * vector[e];
        to[first + e] = signs >> (first + e) & 1 ? -value : value;
    }
}

inline float quarter_scale(float factor, int scale) { return factor * (0.5f + static_cast<float>(scale)) * 0.25f; }

struct Iq2XxsRows { // per 32 elements four rows, then a word of four sign indices and a scale
    static constexpr int64_t SPAN = 256, BYTES = 66;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        const float factor = half_at(unit);
        for (int s = 0; s < 8; ++s) {
            const uint8_t* part = unit + 2 + 8 * s;
            const uint32_t word = word_at(part + 4, 4);
            const float scale = quarter_scale(factor, static_cast<int>(word >> 28));
            for (int j = 0; j < 4; ++j)
                put_signed(scale, table + part[j] * 8, even_signs(word >> (7 * j) & 127), 0, 8, to + s * 32 + j * 8);
        }
    }
};

struct Iq2XsRows { // words of row and signs, then a scale per 16 elements
    static constexpr int64_t SPAN = 256, BYTES = 74;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        const float factor = half_at(unit);
        for (int k = 0; k < 32; ++k) {
            const uint32_t word = word_at(unit + 2 + 2 * k, 2);
            const float scale = quarter_scale(factor, unit[66 + k / 4] >> (k / 2 % 2 * 4) & 15);
            put_signed(scale, table + (word & 511) * 8, even_signs(word >> 9), 0, 8, to + k * 8);
        }
    }
};

struct Iq2SRows { // low bytes of rows, sign bytes, high bits of rows, a scale per 16 elements
    static constexpr int64_t SPAN = 256, BYTES = 82;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        const float factor = half_at(unit);
        for (int k = 0; k < 32; ++k) {
            const int row = unit[2 + k] | (unit[66 + k / 4] >> (k % 4 * 2) & 3) << 8;
            const float scale = quarter_scale(factor, unit[74 + k / 4] >> (k / 2 % 2 * 4) & 15);
            put_signed(scale, table + row * 8, unit[34 + k], 0, 8, to + k * 8);
        }
    }
};

struct Iq3XxsRows { // rows, then per 32 elements a word of four sign indices and a scale
    static constexpr int64_t SPAN = 256, BYTES = 98;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        const float factor = half_at(unit);
        for (int s = 0; s < 8; ++s) {
            const uint32_t word = word_at(unit + 66 + 4 * s, 4);
            const float scale = factor * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
            for (int j = 0; j < 8; ++j)
                put_signed(scale, table + unit[2 + s * 8 + j] * 4, even_signs(word >> (j / 2 * 7) & 127), j % 2 * 4, 4,
                           to + s * 32 + j / 2 * 8);
        }
    }
};

struct Iq3SRows { // low bytes of rows, their ninth bits, sign bytes, a scale per 32 elements
    static constexpr int64_t SPAN = 256, BYTES = 110;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        const float factor = half_at(unit);
        for (int k = 0; k < 64; ++k) {
            const int row = unit[2 + k] | (unit[66 + k / 8] >> (k % 8) & 1) << 8, s = k / 8;
            const float scale = factor * static_cast<float>(1 + 2 * (unit[106 + s / 2] >> (s % 2 * 4) & 15));
            put_signed(scale, table + row * 4, unit[74 + k / 2], k % 2 * 4, 4, to + k / 2 * 8);
        }
    }
};

// Ternary vectors, shifted by an eighth up or down.
inline void put_shifted(float scale, const float* vector, bool down, float* to) {
    const float shift = down ? -0.125f : 0.125f;
    for (int e = 0; e < 8; ++e) to[e] = scale * (vector[e] + shift);
}

struct Iq1SRows { // low bytes of rows; per 32 elements a word of four rows' high bits, a scale and the shift
    static constexpr int64_t SPAN = 256, BYTES = 50;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        const float factor = half_at(unit);
        for (int k = 0; k < 32; ++k) {
            const uint32_t word = word_at(unit + 34 + k / 4 * 2, 2);
            const uint32_t row = unit[2 + k] | (word >> (k % 4 * 3) & 7) << 8;
            put_shifted(factor * static_cast<float>(2 * (word >> 12 & 7) + 1), table + row * 8, word >> 15, to + k * 8);
        }
    }
};

struct Iq1MRows { // low bytes of rows, nibbles of their high bits and shift, words of scales whose tops make the factor
    static constexpr int64_t SPAN = 256, BYTES = 56;
    static void decode(const uint8_t* unit, const float* table, float* to) {
        uint16_t top = 0;
        for (int i = 0; i < 4; ++i) top = static_cast<uint16_t>(top | (word_at(unit + 48 + 2 * i, 2) >> 12) << (4 * i));
        const float factor = half_at(reinterpret_cast<const uint8_t*>(&top));
        for (int k = 0; k < 32; ++k) {
            const int high = unit[32 + k / 2] >> (k % 2 * 4) & 15;
            const uint32_t scale = word_at(unit + 48 + k / 8 * 2, 2) >> (k / 2 % 4 * 3) & 7;
            const int row = unit[k] | (high & 7) << 8;
            put_shifted(factor * static_cast<float>(2 * scale + 1), table + row * 8, high >> 3, to + k * 8);
        }
    }
};

} // namespace tramontane::TM_ISA
