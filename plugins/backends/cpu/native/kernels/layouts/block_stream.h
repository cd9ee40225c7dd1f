// SPDX-License-Identifier: Apache-2.0
// Few rows by floats of eight bits: what a vector of codes unpacks to is multiplied where it lies, in registers. Panels
// unpacked to floats first, as for many rows, cost more than twice the time.
#pragma once
#include "kernels/layouts/blocks.h"
#include "kernels/layouts/panels.h"

namespace tramontane::TM_ISA {

// ROWS rows by a panel, whose weights stream from memory once.
template <class C, int ROWS>
void stream_floats(const tm_matrix& matrix, const char* panel, const char* x, int64_t stride, float* out, int64_t width) {
    using Codes = typename C::Codes;
    constexpr int SUMS = ROWS == 1 ? 4 : ROWS == 2 ? 2 : 1; // of each row: the latency of one is not waited for
    const BlockPlan plan = BlockPlan::of(matrix, C{});
    const Codes decode(matrix);
    typename C::Scales scales[V];
    for (auto& one : scales) one = typename C::Scales(matrix, decode);
    Poison<Codes> poison[V];
    VF total[ROWS][V];
    for (auto& row : total)
        for (VF& one : row) one = zero();
    for (int64_t c = 0; c < plan.chunks; ++c) {
        VF sums[SUMS][ROWS][V];
        for (auto& some : sums)
            for (auto& row : some)
                for (VF& one : row) one = zero();
        const int64_t last = minimum(plan.blocks, (c + 1) * plan.chunk_blocks);
        for (int64_t b = c * plan.chunk_blocks; b < last; ++b) {
            const char* block = panel + plan.codes_at(b);
            const float* of_x = reinterpret_cast<const float*>(x) + b * BLOCK;
#pragma GCC unroll 2
            for (int g = 0; g < GROUPS; ++g) {
                __builtin_prefetch(block + g * GROUP_BYTES + AHEAD, 0, 2);
                VU codes[V];
                for (int v = 0; v < V; ++v) {
                    const VB four = row_of_codes(block, g, v);
                    poison[v].see(four);
                    codes[v] = (VU)four;
                }
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) {
                    VF numbers[V];
                    for (int v = 0; v < V; ++v) numbers[v] = Codes::topmost(j == 3 ? codes[v] : codes[v] << (24 - 8 * j));
#pragma GCC unroll 4
                    for (int r = 0; r < ROWS; ++r) {
                        const VF one = splat(of_x[r * stride / 4 + 4 * g + j]);
                        for (int v = 0; v < V; ++v) sums[j % SUMS][r][v] = fma(numbers[v], one, sums[j % SUMS][r][v]);
                    }
                }
            }
        }
        for (int v = 0; v < V; ++v) {
            scales[v].open(panel + plan.scales_at(c), v);
            for (int r = 0; r < ROWS; ++r) {
                VF sum = sums[0][r][v];
                for (int s = 1; s < SUMS; ++s) sum += sums[s][r][v];
                total[r][v] = fma(sum, scales[v].slope(0), total[r][v]);
            }
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < V; ++v) put(out + r * width + v * W, poison[v].taint(total[r][v]));
}

// Panels::multiply for at most STREAM_ROWS rows of floats.
template <class C>
void multiply_floats(const Panels& p, const Activations& a, int64_t first, int64_t rows, float* out, int64_t width) {
    const char* x = a.data + first * a.stride;
    for (int64_t i = 0; i < p.count; ++i) {
        const char* panel = p.data + i * p.bytes;
        float* to = out + i * PANEL;
        switch (rows) {
        case 1: stream_floats<C, 1>(*p.matrix, panel, x, a.stride, to, width); break;
        case 2: stream_floats<C, 2>(*p.matrix, panel, x, a.stride, to, width); break;
        case 3: stream_floats<C, 3>(*p.matrix, panel, x, a.stride, to, width); break;
        default: stream_floats<C, 4>(*p.matrix, panel, x, a.stride, to, width); break;
        }
    }
}

} // namespace tramontane::TM_ISA
