// SPDX-License-Identifier: Apache-2.0
// Quantized panels to floating point: the very values of the scheme, rounded once to the type asked for.
#pragma once
#include "kernels/layouts/blocks.h"
#include "kernels/layouts/panels.h"

namespace tramontane::TM_ISA {

// Calls give(input, vector of outputs) for two inputs at a time: give(input, even, odd), over the v-th vector of outputs.
template <class C, class F> inline void each_pair(const tm_matrix& matrix, const char* panel, int64_t v, F&& give) {
    using Codes = typename C::Codes;
    const BlockPlan plan = BlockPlan::of(matrix, C{});
    const Codes decode(matrix);
    typename C::Scales scales(matrix, decode);
    for (int64_t b = 0; b < plan.blocks; ++b) {
        if (b % plan.chunk_blocks == 0) scales.open(panel + plan.scales_at(b / plan.chunk_blocks), v);
        scales.block(b % plan.chunk_blocks);
        VB codes[GROUPS];
        decode.raw(panel + plan.codes_at(b), v, codes);
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; ++g)
#pragma GCC unroll 2
            for (int j = 0; j < 4; j += 2) {
                const VU four = (VU)codes[g];
                const VF even = scales.value(g / 4, decode.number((four >> (8 * j)) & 0xff), C::CENTERED);
                const VF odd = scales.value(g / 4, decode.number((four >> (8 * j + 8)) & 0xff), C::CENTERED);
                give(b * BLOCK + 4 * g + j, even, odd);
            }
    }
}

// Two vectors rounded to bfloat16, side by side in each lane.
inline VU bf16_pair(VF even, VF odd) {
    const VU low = __builtin_convertvector(narrow_bf16(even), VU), high = __builtin_convertvector(narrow_bf16(odd), VU);
    return low | high << 16;
}

// To panels as panels.h has them.
template <class C> inline void unpack_panel(const tm_matrix& matrix, const char* panel, bf16* to) {
    for (int64_t v = 0; v < V; ++v)
        each_pair<C>(matrix, panel, v, [&](int64_t input, VF even, VF odd) {
            put(to + input * PANEL + 2 * v * W, bf16_pair(even, odd));
        });
}

template <class C> inline void unpack_panel(const tm_matrix& matrix, const char* panel, float* to) {
    for (int64_t v = 0; v < V; ++v)
        each_pair<C>(matrix, panel, v, [&](int64_t input, VF even, VF odd) {
            put(to + input * PANEL + v * W, even);
            put(to + (input + 1) * PANEL + v * W, odd);
        });
}

} // namespace tramontane::TM_ISA
