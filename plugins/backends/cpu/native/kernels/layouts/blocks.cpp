// SPDX-License-Identifier: Apache-2.0
// Products with quantized weights: whole numbers by whole numbers straight from the panels, or for many rows, and where
// activations stay floats, panels unpacked to floating point in a core's cache and multiplied there; few rows by floats of
// eight bits straight from the panels too.
#include "kernels/layouts/blocks.h"
#include "kernels/layouts/block_floats.h"
#include "kernels/layouts/block_rows.h"
#include "kernels/layouts/block_stream.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t UNPACKED_BYTES = 512 << 10; // of a core's second-level cache, for unpacked panels

template <int64_t BYTES> inline void fetch(const char* from) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < BYTES; i += 64) __builtin_prefetch(from + i, 0, 2);
}

// ROWS rows by a panel, whose weights stream from memory once.
template <class C, int ROWS>
void product(const tm_matrix& matrix, const char* panel, const char* x, int64_t stride, float* out, int64_t width) {
    using Codes = typename C::Codes;
    using Scales = typename C::Scales;
    const BlockPlan plan = BlockPlan::of(matrix, C{});
    const int64_t sums_at = plan.blocks * BLOCK;
    const Codes decode(matrix);
    Scales scales[V];
    for (Scales& one : scales) one = Scales(matrix, decode);
    const char *codes = panel, *chunk = panel;
    VF total[ROWS][V];
    for (auto& row : total)
        for (VF& one : row) one = zero();
    for (int64_t first = 0, c = 0; first < plan.blocks; first += plan.chunk_blocks, ++c, chunk += plan.scale_bytes) {
        if (c % plan.together == 0) { // here are their scales, then their codes
            chunk = codes;
            codes += plan.lines();
            for (const char* line = chunk; line < codes; line += 64) fetch<64>(line + AHEAD);
        }
#pragma GCC unroll 4
        for (int64_t v = 0; v < V; ++v) scales[v].open(chunk, v);
        Gathered gathered[ROWS][V];
        const int64_t last = minimum(plan.blocks, first + plan.chunk_blocks);
        for (int64_t b = first; b < last; ++b, codes += Codes::BYTES) {
            fetch<Codes::BYTES>(codes + AHEAD);
#pragma GCC unroll 4
            for (int64_t v = 0; v < V; ++v) {
                VB loaded[GROUPS];
                decode.load(codes, v, loaded);
                scales[v].block(b - first);
#pragma GCC unroll 4
                for (int r = 0; r < ROWS; ++r) {
                    const char* row = x + r * stride;
                    VI halves[2];
                    halves_of<Codes, Scales::HALVES>(loaded, reinterpret_cast<const int8_t*>(row) + b * BLOCK, halves);
                    const BlockOfX& of_x = reinterpret_cast<const BlockOfX*>(row + sums_at)[b];
                    scales[v].add(halves[0], halves[1], of_x, gathered[r][v]);
                }
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
            for (int64_t v = 0; v < V; ++v) total[r][v] = scales[v].close(gathered[r][v], total[r][v]);
    }
    for (int r = 0; r < ROWS; ++r)
        for (int64_t v = 0; v < V; ++v) put(out + r * width + v * W, total[r][v]);
}

template <class C>
void few_rows(const Panels& p, const char* panel, const char* x, int64_t stride, int64_t rows, float* out, int64_t width) {
    switch (rows) {
    case 1: return product<C, 1>(*p.matrix, panel, x, stride, out, width);
    case 2: return product<C, 2>(*p.matrix, panel, x, stride, out, width);
    case 3: return product<C, 3>(*p.matrix, panel, x, stride, out, width);
    case 4: return product<C, 4>(*p.matrix, panel, x, stride, out, width);
    default: return;
    }
}

// Panels::multiply for FORM_Q8.
template <class C>
void multiply_blocks(const Panels& p, const Activations& a, int64_t first, int64_t rows, float* out, int64_t width) {
    for (int64_t i = 0; i < p.count; ++i) {
        const char* panel = p.data + i * p.bytes;
        const char* x = a.data + first * a.stride;
        float* to = out + i * PANEL;
#if defined(__AVX2__) && !defined(__AVX512F__)
        if (rows >= BlockRows<C>::FEWEST) {
            BlockRows<C>(*p.matrix, panel).multiply(x, a.stride, rows, to, width);
            continue;
        }
#endif
        int64_t left = rows;
        for (; left > 4; left -= 4, x += 4 * a.stride, to += 4 * width) few_rows<C>(p, panel, x, a.stride, 4, to, width);
        few_rows<C>(p, panel, x, a.stride, left, to, width);
    }
}

// --- the layout ------------------------------------------------------------------------------------------------------

bool whole(const tm_matrix& matrix) {
    bool found = false;
    with_coding(matrix, [&](auto coding) { found = decltype(coding)::WHOLE; });
    return found && !matrix.sizes[2];
}

// Tiles of bfloat16 overtake whole-number products from this many rows on.
bool tiles(int64_t M) {
#if defined(__AVX512BF16__)
    return amx_enabled() && M >= 24;
#else
    (void)M;
    return false;
#endif
}

// Few rows of floats meet floats of eight bits.
bool streamed(const tm_matrix& matrix, int64_t M) {
    bool found = false;
    with_coding(matrix, [&](auto coding) { found = !decltype(coding)::WHOLE; });
    return found && M <= STREAM_ROWS;
}

Form form(const tm_matrix& matrix, int32_t x_dtype, int64_t M) {
    if (streamed(matrix, M)) return FORM_F32;
    if (whole(matrix) && !tiles(M)) return FORM_Q8;
#if defined(__AVX512BF16__)
    if (x_dtype == TM_BF16) return FORM_BF16;
    // Float32 activations are rounded only where that was asked for, and then as little as their 8-bit form would.
    if (!matrix.sizes[2] && tiles(M)) return FORM_BF16;
#else
    (void)x_dtype;
#endif
    return FORM_F32;
}

template <class E> Panels unpacked(const tm_matrix& matrix, int64_t first, int64_t count, int64_t M, Form form, char* scratch) {
    const int64_t depth = depth_of(matrix), bytes = depth * PANEL * static_cast<int64_t>(sizeof(E));
    with_coding(matrix, [&](auto coding) {
        const BlockPlan plan = BlockPlan::of(matrix, coding);
        const char* from = static_cast<const char*>(matrix.data) + first * plan.panel_bytes;
        for (int64_t i = 0; i < count; ++i)
            unpack_panel<decltype(coding)>(matrix, from + i * plan.panel_bytes, reinterpret_cast<E*>(scratch + i * bytes));
    });
    return {scratch, bytes, count, depth, pick_multiply<E>(M, form)};
}

Panels open(const tm_matrix& matrix, int64_t first, int64_t count, int64_t M, Form form, char* scratch) {
    if (form == FORM_BF16) return unpacked<bf16>(matrix, first, count, M, form, scratch);
    if (form == FORM_F32 && !streamed(matrix, M)) return unpacked<float>(matrix, first, count, M, form, scratch);
    Panels made{nullptr, 0, count, depth_of(matrix), nullptr, &matrix};
    with_coding(matrix, [&](auto coding) {
        using C = decltype(coding);
        made.bytes = BlockPlan::of(matrix, coding).panel_bytes;
        made.data = static_cast<const char*>(matrix.data) + first * made.bytes;
        if constexpr (C::WHOLE) made.multiply = multiply_blocks<C>;
        if constexpr (!C::WHOLE) made.multiply = multiply_floats<C>;
    });
    return made;
}

// Whether products read the blocks themselves.
bool straight(const tm_matrix& matrix, int64_t M) { return streamed(matrix, M) || (whole(matrix) && !tiles(M)); }

int64_t scratch(const tm_matrix& matrix, int64_t count, int64_t M) {
    return straight(matrix, M) ? 0 : count * float_panel_bytes(matrix);
}

int64_t together(const tm_matrix& matrix, int64_t M) {
    if (!straight(matrix, M)) return maximum<int64_t>(2, minimum<int64_t>(8, UNPACKED_BYTES / float_panel_bytes(matrix)));
    if (M > 16) return 4;
    int64_t bytes = 0;
    with_coding(matrix, [&](auto coding) { bytes = BlockPlan::of(matrix, coding).panel_bytes; });
    // A few microseconds' worth: threads then end together, and drawing a ticket costs nothing.
    return maximum<int64_t>(1, minimum<int64_t>(8, 32768 / bytes));
}

} // namespace

const Layout BLOCKS_LAYOUT = {form, open, scratch, together};

} // namespace tramontane::TM_ISA
