// SPDX-License-Identifier: Apache-2.0
// Whole-number products of many rows, for AVX2: some blocks of a panel are brought to bytes once, in the first-level
// cache, and meet all rows, a few of them at a time so that codes and a row's activations serve several products each.
// A few rows pass all of these blocks before the next rows come, so their activations are read in one stretch and their
// sums go to `out` once in a span.
#pragma once
#include "kernels/layouts/blocks.h"

namespace tramontane::TM_ISA {

#if defined(__AVX2__) && !defined(__AVX512F__)

template <class C> class BlockRows {
    using Codes = typename C::Codes;
    using Scales = typename C::Scales;

  public:
    // Rows from which this pays: sooner where sums stay narrow.
    static constexpr int64_t FEWEST = GROUPS_IN_16_BITS<Codes> == 8 ? 8 : 12;
    static constexpr int64_t FETCHED = 2048; // bytes ahead
    static constexpr int64_t SPAN = 8;       // blocks that are ready at a time
    // Registers: sums of 16 bits for each row and vector, and where those overflow within a block, of 32 bits too.
    static constexpr int ROWS = GROUPS_IN_16_BITS<Codes> == 8 || GROUPS_IN_16_BITS<Codes> == 1 ? 4 : 3;

    BlockRows(const tm_matrix& matrix, const char* panel)
        : plan_(BlockPlan::of(matrix, C{})), decode_(matrix), panel_(panel) {
        for (Scales& one : scales_) one = Scales(matrix, decode_);
    }

    void multiply(const char* x, int64_t stride, int64_t rows, float* out, int64_t width) {
        for (int64_t r = 0; r < rows; ++r)
            for (int v = 0; v < V; ++v) put(out + r * width + v * W, zero());
        for (int64_t first = 0; first < plan_.blocks; first += SPAN) {
            const int64_t count = minimum(SPAN, plan_.blocks - first);
            for (int64_t b = 0; b < count; ++b) open(first + b, ready_[b]);
            __asm__("" : : "r"(ready_) : "memory"); // not in registers, which the sums need
            const char* row = x;
            float* to = out;
            int64_t left = rows;
            for (; left >= ROWS; left -= ROWS, row += ROWS * stride, to += ROWS * width)
                tile<ROWS>(first, count, row, stride, to, width);
            switch (left) {
            case 1: tile<1>(first, count, row, stride, to, width); break;
            case 2: tile<2>(first, count, row, stride, to, width); break;
            case 3: tile<3>(first, count, row, stride, to, width); break;
            default: break;
            }
        }
    }

  private:
    static constexpr int HALVES = Scales::HALVES ? 2 : 1;

    // A block as all rows meet it: w = slope * (what is multiplied) + rise.
    struct Ready {
        VB bytes[GROUPS][V];
        VF slope[HALVES][V], rise[HALVES][V];
    };

    void open(int64_t b, Ready& ready) {
        const char* codes = panel_ + plan_.codes_at(b);
        for (int64_t i = 0; i < Codes::BYTES; i += 64) __builtin_prefetch(codes + FETCHED + i);
        const int64_t in_chunk = b % plan_.chunk_blocks;
        for (int v = 0; v < V; ++v) {
            if (in_chunk == 0) scales_[v].open(panel_ + plan_.scales_at(b / plan_.chunk_blocks), v);
            scales_[v].block(in_chunk);
            for (int h = 0; h < HALVES; ++h) {
                ready.slope[h][v] = scales_[v].slope(h);
                ready.rise[h][v] = zero() - scales_[v].drop(h);
            }
            VB loaded[GROUPS];
            decode_.load(codes, v, loaded);
            for (int g = 0; g < GROUPS; ++g) ready.bytes[g][v] = multiplied<Codes>(loaded[g]);
        }
    }

    // COUNT rows by the blocks that are ready.
    template <int COUNT>
    void tile(int64_t first, int64_t count, const char* x, int64_t stride, float* out, int64_t width) const {
        VF total[COUNT][V];
        for (int r = 0; r < COUNT; ++r)
            for (int v = 0; v < V; ++v) total[r][v] = get<VF>(out + r * width + v * W);
        const char* codes = x + first * BLOCK;
        const BlockOfX* of_x = reinterpret_cast<const BlockOfX*>(x + plan_.blocks * BLOCK) + first;
        const Ready* ready = ready_;
        for (const Ready* end = ready_ + count; ready != end; ++ready, codes += BLOCK, ++of_x) {
            VI sums[2][COUNT][V];
            const auto load = [&](int g, int v) { return ready->bytes[g][v]; };
            sum_block<Codes, Scales::HALVES, COUNT, V>(load, codes, stride, sums);
#pragma GCC unroll 4
            for (int r = 0; r < COUNT; ++r) {
                const BlockOfX& block = *reinterpret_cast<const BlockOfX*>(reinterpret_cast<const char*>(of_x) + r * stride);
                for (int v = 0; v < V; ++v) {
                    VF part = __builtin_convertvector(sums[0][r][v], VF) * ready->slope[0][v];
                    if (HALVES == 2) part = fma(__builtin_convertvector(sums[1][r][v], VF), ready->slope[HALVES - 1][v], part);
                    total[r][v] = fma(part, splat(block.scale), total[r][v]);
                    for (int h = 0; Scales::DROPS && h < HALVES; ++h)
                        total[r][v] = fma(ready->rise[h][v], splat(HALVES == 2 ? block.halves[h] : block.sum), total[r][v]);
                }
            }
        }
        for (int r = 0; r < COUNT; ++r)
            for (int v = 0; v < V; ++v) put(out + r * width + v * W, total[r][v]);
    }

    const BlockPlan plan_;
    const Codes decode_;
    const char* panel_;
    Scales scales_[V];
    Ready ready_[SPAN];
};

#endif

} // namespace tramontane::TM_ISA
