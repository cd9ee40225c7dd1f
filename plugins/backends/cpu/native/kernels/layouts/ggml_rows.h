// SPDX-License-Identifier: Apache-2.0
// Rows of ggml blocks to floats, for the types that have no form in blocks.h. The layouts of blocks are those of ggml
// (https://github.com/ggml-org/ggml); values are those that tramontane.schemes gives, bit for bit.
#pragma once
#include "kernels/layouts/ggml_grids.h"

namespace tramontane::TM_ISA {

// Each type: BYTES of a unit of SPAN elements, and `decode` of one; types with tables of vectors get theirs.

struct Q2KRows {
    static constexpr int64_t SPAN = 256, BYTES = 84;
    static void decode(const uint8_t* unit, const float*, float* to) {
        const float factor = half_at(unit + 80), minimum = half_at(unit + 82);
        for (int i = 0; i < 256; ++i) {
            const int scale = unit[i / 16], code = unit[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            to[i] = factor * static_cast<float>(scale & 15) * static_cast<float>(code) - minimum * static_cast<float>(scale >> 4);
        }
    }
};

struct Q3KRows {
    static constexpr int64_t SPAN = 256, BYTES = 110;
    static void decode(const uint8_t* unit, const float*, float* to) {
        const float factor = half_at(unit + 108);
        for (int i = 0; i < 256; ++i) {
            const int s = i / 16, low = unit[96 + s % 8] >> (s / 8 * 4) & 15, high = unit[104 + s % 4] >> (s / 4 * 2) & 3;
            const int two = unit[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3, third = unit[i % 32] >> (i / 32) & 1;
            to[i] = factor * static_cast<float>((low | high << 4) - 32) * static_cast<float>((two | third << 2) - 4);
        }
    }
};

// 16 uneven steps.
inline float step_of(int code) {
    static const int8_t STEPS[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return static_cast<float>(STEPS[code]);
}

struct Iq4NlRows {
    static constexpr int64_t SPAN = 32, BYTES = 18;
    static void decode(const uint8_t* unit, const float*, float* to) {
        const float factor = half_at(unit);
        for (int i = 0; i < 32; ++i) to[i] = factor * step_of(unit[2 + i % 16] >> (i / 16 * 4) & 15);
    }
};

struct Iq4XsRows {
    static constexpr int64_t SPAN = 256, BYTES = 136;
    static void decode(const uint8_t* unit, const float*, float* to) {
        const float factor = half_at(unit);
        for (int i = 0; i < 256; ++i) {
            const int s = i / 32, low = unit[4 + s / 2] >> (s % 2 * 4) & 15, high = unit[2 + s / 4] >> (s % 4 * 2) & 3;
            const float scale = factor * static_cast<float>((low | high << 4) - 32);
            to[i] = scale * step_of(unit[8 + s * 16 + i % 16] >> (i / 16 % 2 * 4) & 15);
        }
    }
};

// Ternary digits, five to a byte that is multiplied by powers of three to bring one to the top.
struct Tq1Rows {
    static constexpr int64_t SPAN = 256, BYTES = 54;
    static void decode(const uint8_t* unit, const float*, float* to) {
        static const int POWERS[5] = {1, 3, 9, 27, 81};
        const float factor = half_at(unit + 52);
        const auto part = [&](int start, int width, int digits) {
            for (int d = 0; d < digits; ++d)
                for (int i = 0; i < width; ++i)
                    *to++ = factor * static_cast<float>(((unit[start + i] * POWERS[d] & 255) * 3 >> 8) - 1);
        };
        part(0, 32, 5), part(32, 16, 5), part(48, 4, 4);
    }
};

struct Tq2Rows {
    static constexpr int64_t SPAN = 256, BYTES = 66;
    static void decode(const uint8_t* unit, const float*, float* to) {
        const float factor = half_at(unit + 64);
        for (int i = 0; i < 256; ++i)
            to[i] = factor * static_cast<float>((unit[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) - 1);
    }
};

// e2m1, doubled.
inline float doubled_of(int code) {
    static const int8_t DOUBLED[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return static_cast<float>(DOUBLED[code]);
}

struct Mxfp4Rows { // under half a power of two
    static constexpr int64_t SPAN = 32, BYTES = 17;
    static void decode(const uint8_t* unit, const float*, float* to) {
        const uint32_t e = unit[0], bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
        float factor;
        memcpy(&factor, &bits, sizeof factor);
        for (int i = 0; i < 32; ++i) to[i] = factor * doubled_of(unit[1 + i % 16] >> (i / 16 * 4) & 15);
    }
};

struct Nvfp4Rows { // four groups of 16 under half an e4m3 without sign; the one that would be no number counts as nothing
    static constexpr int64_t SPAN = 64, BYTES = 36;
    static float scale_of(uint8_t byte) {
        if (byte == 0x7f) return 0.0f;
        return byte == 0xff ? 480.0f : widen_f8(VU{} + (byte & 0x7f))[0];
    }
    static void decode(const uint8_t* unit, const float*, float* to) {
        for (int g = 0; g < 4; ++g) {
            const float factor = scale_of(unit[g]) * 0.5f;
            for (int i = 0; i < 16; ++i) to[g * 16 + i] = factor * doubled_of(unit[4 + g * 8 + i % 8] >> (i / 8 * 4) & 15);
        }
    }
};

// Calls f with the type of a code; false where it is none of these.
template <class F> inline bool with_ggml_rows(int32_t code, F&& f) {
    switch (code) {
    case TM_CODE_Q2_K: f(Q2KRows{}); return true;
    case TM_CODE_Q3_K: f(Q3KRows{}); return true;
    case TM_CODE_IQ4_NL: f(Iq4NlRows{}); return true;
    case TM_CODE_IQ4_XS: f(Iq4XsRows{}); return true;
    case TM_CODE_TQ1_0: f(Tq1Rows{}); return true;
    case TM_CODE_TQ2_0: f(Tq2Rows{}); return true;
    case TM_CODE_MXFP4: f(Mxfp4Rows{}); return true;
    case TM_CODE_NVFP4: f(Nvfp4Rows{}); return true;
    case TM_CODE_IQ1_S: f(Iq1SRows{}); return true;
    case TM_CODE_IQ1_M: f(Iq1MRows{}); return true;
    case TM_CODE_IQ2_XXS: f(Iq2XxsRows{}); return true;
    case TM_CODE_IQ2_XS: f(Iq2XsRows{}); return true;
    case TM_CODE_IQ2_S: f(Iq2SRows{}); return true;
    case TM_CODE_IQ3_XXS: f(Iq3XxsRows{}); return true;
    case TM_CODE_IQ3_S: f(Iq3SRows{}); return true;
    default: return false;
    }
}

} // namespace tramontane::TM_ISA
