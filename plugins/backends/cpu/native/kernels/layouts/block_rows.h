// SPDX-License-Identifier: Apache-2.0
// Whole-number products of many rows, for AVX2: a block of a panel is brought to bytes once, in the first-level cache,
// and meets all rows, some of them at a time so that its codes and a row's activations serve several products each.
// Results gather in `out`, which stays in the first-level cache too.
//
// Gathering some blocks of all rows beside one another, to read them from the first-level cache for several panels, was
// tried: it was no faster, and with results gathered too a fifth slower.
#pragma once
#include "kernels/layouts/blocks.h"

namespace tramontane::TM_ISA {

#if defined(__AVX2__) && !defined(__AVX512F__)

template <class C> class BlockRows {
    using Codes = typename C::Codes;
    using Scales = typename C::Scales;

  public:
    static constexpr int64_t FEWEST = 12; // rows from which this pays
    static constexpr int64_t FETCHED = 2048; // bytes ahead
    // Registers: sums of 16 bits for each row and vector, and where those overflow within a block, of 32 bits too.
    static constexpr int ROWS = GROUPS_IN_16_BITS<Codes> == 8 || GROUPS_IN_16_BITS<Codes> == 1 ? 4 : 3;

    BlockRows(const tm_matrix& matrix, const char* panel)
        : plan_(BlockPlan::of(matrix, C{})), decode_(matrix), panel_(panel) {
        for (Scales& one : scales_) one = Scales(matrix, decode_);
    }

    void multiply(const char* x, int64_t stride, int64_t rows, float* out, int64_t width) {
        for (int64_t r = 0; r < rows; ++r)
            for (int v = 0; v < V; ++v) put(out + r * width + v * W, zero());
        for (int64_t b = 0; b < plan_.blocks; ++b) {
            open(b);
            const char* row = x;
            float* to = out;
            int64_t left = rows;
            for (; left >= ROWS; left -= ROWS, row += ROWS * stride, to += ROWS * width) tile<ROWS>(b, row, stride, to, width);
            switch (left) {
            case 1: tile<1>(b, row, stride, to, width); break;
            case 2: tile<2>(b, row, stride, to, width); break;
            case 3: tile<3>(b, row, stride, to, width); break;
            default: break;
            }
        }
    }

  private:
    // Makes ready what all rows need of block b.
    void open(int64_t b) {
        const char* codes = panel_ + plan_.codes_at(b);
        for (int64_t i = 0; i < Codes::BYTES; i += 64) __builtin_prefetch(codes + FETCHED + i);
        const int64_t in_chunk = b % plan_.chunk_blocks;
        for (int v = 0; v < V; ++v) {
            if (in_chunk == 0) scales_[v].open(panel_ + plan_.scales_at(b / plan_.chunk_blocks), v);
            scales_[v].block(in_chunk);
            for (int h = 0; h < HALVES; ++h) slope_[h][v] = scales_[v].slope(h), rise_[h][v] = zero() - scales_[v].drop(h);
            VB loaded[GROUPS];
            decode_.load(codes, v, loaded);
            for (int g = 0; g < GROUPS; ++g) bytes_[g][v] = multiplied<Codes>(loaded[g]);
        }
        __asm__("" : : "r"(bytes_) : "memory"); // not in registers, which the sums need
    }

    template <int COUNT> void tile(int64_t b, const char* x, int64_t stride, float* out, int64_t width) const {
        VI sums[2][COUNT][V];
        const auto load = [&](int g, int v) { return bytes_[g][v]; };
        sum_block<Codes, Scales::HALVES, COUNT, V>(load, x + b * BLOCK, stride, sums);
#pragma GCC unroll 4
        for (int r = 0; r < COUNT; ++r) {
            const BlockOfX& of_x = reinterpret_cast<const BlockOfX*>(x + r * stride + plan_.blocks * BLOCK)[b];
            for (int v = 0; v < V; ++v) {
                VF part = __builtin_convertvector(sums[0][r][v], VF) * slope_[0][v];
                if (HALVES == 2) part = fma(__builtin_convertvector(sums[1][r][v], VF), slope_[HALVES - 1][v], part);
                VF total = fma(part, splat(of_x.scale), get<VF>(out + r * width + v * W));
                for (int h = 0; h < HALVES; ++h)
                    total = fma(rise_[h][v], splat(HALVES == 2 ? of_x.halves[h] : of_x.sum), total);
                put(out + r * width + v * W, total);
            }
        }
    }

    static constexpr int HALVES = Scales::HALVES ? 2 : 1;

    const BlockPlan plan_;
    const Codes decode_;
    const char* panel_;
    Scales scales_[V];
    VF slope_[HALVES][V], rise_[HALVES][V]; // w = slope * (what is multiplied) + rise
    VB bytes_[GROUPS][V]; // as they are multiplied
};

#endif

} // namespace tramontane::TM_ISA
