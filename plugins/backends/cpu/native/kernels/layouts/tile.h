// SPDX-License-Identifier: Apache-2.0
// Products of rows of activations with panels of 16 outputs, for weights of any floating type: sums stay in registers,
// each vector of weights serves all rows of a tile, each activation all outputs, and nothing is summed across lanes.
//
// A `Weights` policy says what one step along the inputs reads: `STEP` bytes of a panel, `X_STEP` bytes of a row of
// activations, and how they are multiplied into V vectors of sums.
#pragma once
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

constexpr int V = 16 / W; // vectors that hold one panel

// float32 weights [inputs][16].
struct F32Weights {
    static constexpr int64_t STEP = 64, X_STEP = 4, INPUTS = 1;
    struct Vectors {
        VF v[V];
    };
    static Vectors load(const char* w) {
        Vectors made;
        for (int i = 0; i < V; ++i) made.v[i] = get<VF>(w + i * sizeof(VF));
        return made;
    }
    static void multiply(const Vectors& w, const char* x, VF* sums) {
        const VF value = splat(*reinterpret_cast<const float*>(x));
        for (int i = 0; i < V; ++i) sums[i] = fma(w.v[i], value, sums[i]);
    }
};

// float16 weights [inputs][16].
struct F16Weights {
    static constexpr int64_t STEP = 32, X_STEP = 4, INPUTS = 1;
    using Vectors = F32Weights::Vectors;
    static Vectors load(const char* w) {
        Vectors made;
        for (int i = 0; i < V; ++i) made.v[i] = widen_f16(get<VH>(w + i * sizeof(VH)));
        return made;
    }
    static void multiply(const Vectors& w, const char* x, VF* sums) { F32Weights::multiply(w, x, sums); }
};

// bfloat16 weights [inputs / 2][16][2] with float32 activations: each vector holds two inputs of its outputs.
struct Bf16Weights {
    static constexpr int64_t STEP = 64, X_STEP = 8, INPUTS = 2;
    struct Vectors {
        VF even[V], odd[V];
    };
    static Vectors load(const char* w) {
        Vectors made;
        for (int i = 0; i < V; ++i) {
            const VU pair = get<VU>(w + i * sizeof(VU));
            made.even[i] = (VF)(pair << 16);
            made.odd[i] = (VF)(pair & 0xffff0000u);
        }
        return made;
    }
    static void multiply(const Vectors& w, const char* x, VF* sums) {
        const float* pair = reinterpret_cast<const float*>(x);
        const VF first = splat(pair[0]), second = splat(pair[1]);
        for (int i = 0; i < V; ++i) sums[i] = fma(w.odd[i], second, fma(w.even[i], first, sums[i]));
    }
};

#if defined(__AVX512BF16__)
// The same weights with bfloat16 activations: the processor's own dot product of pairs.
struct Bf16Pairs {
    static constexpr int64_t STEP = 64, X_STEP = 4, INPUTS = 2;
    struct Vectors {
        __m512bh v;
    };
    static Vectors load(const char* w) { return {(__m512bh)get<VU>(w)}; }
    static void multiply(const Vectors& w, const char* x, VF* sums) {
        sums[0] = _mm512_dpbf16_ps(sums[0], w.v, (__m512bh)_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x)));
    }
};
#endif

// Bytes that are fetched ahead of a product while weights stream, to the second-level cache: more than a processor's own
// prefetching brings in time where memory answers late, because others use it too.
constexpr int64_t AHEAD = 16384;

// ROWS rows by one panel, UNROLL independent sums of each: for few rows, where the latency of a sum is what waits.
template <class Weights, int ROWS, int UNROLL>
inline void stream(const char* w, const char* x, int64_t x_stride, int64_t depth, float* out, int64_t width) {
    VF sums[UNROLL][ROWS][V];
    for (auto& unrolled : sums)
        for (auto& row : unrolled)
            for (auto& one : row) one = zero();
    const int64_t steps = depth / Weights::INPUTS;
    for (int64_t s = 0; s + UNROLL <= steps; s += UNROLL) { // depth is a multiple of 32
#pragma GCC unroll 8
        for (int u = 0; u < UNROLL; ++u) {
            __builtin_prefetch(w + u * Weights::STEP + AHEAD, 0, 2);
            const auto vectors = Weights::load(w + u * Weights::STEP);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; ++r) Weights::multiply(vectors, x + r * x_stride + u * Weights::X_STEP, sums[u][r]);
        }
        w += UNROLL * Weights::STEP;
        x += UNROLL * Weights::X_STEP;
    }
    for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < V; ++i) {
            VF total = sums[0][r][i];
            for (int u = 1; u < UNROLL; ++u) total += sums[u][r][i];
            put(out + r * width + i * W, total);
        }
}

// ROWS rows by COUNT panels: for many rows, where each load must serve as many products as registers allow.
template <class Weights, int ROWS, int COUNT>
inline void tile(const char* w, int64_t bytes, const char* x, int64_t x_stride, int64_t depth, float* out, int64_t width) {
    VF sums[ROWS][COUNT][V];
    for (auto& row : sums)
        for (auto& panel : row)
            for (auto& one : panel) one = zero();
    for (int64_t s = 0; s < depth; s += Weights::INPUTS) {
        typename Weights::Vectors vectors[COUNT];
#pragma GCC unroll 4
        for (int p = 0; p < COUNT; ++p) vectors[p] = Weights::load(w + p * bytes);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
            for (int p = 0; p < COUNT; ++p) Weights::multiply(vectors[p], x + r * x_stride, sums[r][p]);
        w += Weights::STEP;
        x += Weights::X_STEP;
    }
    for (int r = 0; r < ROWS; ++r)
        for (int p = 0; p < COUNT; ++p)
            for (int i = 0; i < V; ++i) put(out + r * width + p * PANEL + i * W, sums[r][p][i]);
}

// Registers: 6 x 4 x 1 sums of 32, 6 x 1 x 2 or 2 x 1 x 4 of 16.
constexpr int TILE_ROWS = W == 4 ? 2 : 6;
constexpr int TILE_PANELS = W == 16 ? 4 : 1;
// Up to this many rows weights are streamed panel by panel.
constexpr int STREAM_ROWS = W == 4 ? 2 : 4;

template <class Weights, int COUNT>
inline void tile_rows(const Panels& p, const char* w, const char* x, int64_t stride, int64_t rows, float* out, int64_t width) {
    while (rows >= TILE_ROWS) {
        tile<Weights, TILE_ROWS, COUNT>(w, p.bytes, x, stride, p.depth, out, width);
        x += TILE_ROWS * stride, out += TILE_ROWS * width, rows -= TILE_ROWS;
    }
    switch (rows) {
    case 1: return tile<Weights, 1, COUNT>(w, p.bytes, x, stride, p.depth, out, width);
    case 2: return tile<Weights, 2, COUNT>(w, p.bytes, x, stride, p.depth, out, width);
    case 3: return tile<Weights, 3, COUNT>(w, p.bytes, x, stride, p.depth, out, width);
    case 4: return tile<Weights, 4, COUNT>(w, p.bytes, x, stride, p.depth, out, width);
    case 5: return tile<Weights, 5, COUNT>(w, p.bytes, x, stride, p.depth, out, width);
    default: return;
    }
}

// Panels::multiply for many rows.
template <class Weights>
void multiply_tiles(const Panels& p, const Activations& a, int64_t first, int64_t rows, float* out, int64_t width) {
    const char* x = a.data + first * a.stride;
    int64_t panel = 0;
    for (; panel + TILE_PANELS <= p.count; panel += TILE_PANELS)
        tile_rows<Weights, TILE_PANELS>(p, p.data + panel * p.bytes, x, a.stride, rows, out + panel * PANEL, width);
    for (; panel < p.count; ++panel)
        tile_rows<Weights, 1>(p, p.data + panel * p.bytes, x, a.stride, rows, out + panel * PANEL, width);
}

// Panels::multiply for at most STREAM_ROWS rows in all.
template <class Weights>
void multiply_stream(const Panels& p, const Activations& a, int64_t first, int64_t rows, float* out, int64_t width) {
    const char* x = a.data + first * a.stride;
    for (int64_t panel = 0; panel < p.count; ++panel) {
        const char* w = p.data + panel * p.bytes;
        float* to = out + panel * PANEL;
        switch (rows) {
        case 1: stream<Weights, 1, 8 / V>(w, x, a.stride, p.depth, to, width); break;
        case 2: stream<Weights, 2, 4 / V>(w, x, a.stride, p.depth, to, width); break;
        case 3: stream<Weights, 3, 2>(w, x, a.stride, p.depth, to, width); break;
        default: stream<Weights, 4, 2>(w, x, a.stride, p.depth, to, width); break;
        }
    }
}

} // namespace tramontane::TM_ISA
