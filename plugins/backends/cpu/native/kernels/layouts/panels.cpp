// SPDX-License-Identifier: Apache-2.0
// The layout of floating-point weights: panels of 16 outputs, inputs one after the other; of bfloat16 two inputs side by
// side, which is what dot products of pairs and tiles read. Any instruction set reads the same bytes.
#include "kernels/layouts/panels.h"

namespace tramontane::TM_ISA {

namespace {

int64_t panel_bytes(const tm_matrix& matrix) { return depth_of(matrix) * PANEL * size_of(matrix.dtype); }

// --- packing ---------------------------------------------------------------------------------------------------------

int64_t bytes(const tm_matrix& matrix) { return panels_of(matrix) * panel_bytes(matrix); }

template <class From, class To>
void pack_panel(const tm_matrix& matrix, int64_t panel, const char* rows, int64_t stride) {
    To* panels = reinterpret_cast<To*>((char*)matrix.data);
    for (int64_t output = panel * PANEL; output < (panel + 1) * PANEL; ++output) {
        const From* row = reinterpret_cast<const From*>(rows + output * stride);
        pack_output(row, output < matrix.outputs ? matrix.inputs : 0, depth_of(matrix), output, panels);
    }
}

void pack(Worker& worker, const tm_matrix& matrix, const void* rows, int64_t stride, int32_t dtype) {
    worker.each(panels_of(matrix), 1, [&](int64_t begin, int64_t end) {
        with_float_type(dtype, [&](auto from) {
            with_float_type(matrix.dtype, [&](auto to) {
                for (int64_t panel = begin; panel < end; ++panel)
                    pack_panel<decltype(from), decltype(to)>(matrix, panel, static_cast<const char*>(rows), stride);
            });
        });
    });
}

template <class From, class To> void unpack_row(const tm_matrix& matrix, int64_t output, To* to) {
    constexpr int64_t group = Grouped<From>::VALUE;
    const int64_t lane = output % PANEL;
    const From* from = reinterpret_cast<const From*>((const char*)matrix.data + output / PANEL * panel_bytes(matrix));
    for (int64_t i = 0; i < matrix.inputs; i += W) {
        From gathered[W];
        for (int64_t j = 0; j < W; ++j) gathered[j] = from[place(i + j, lane, group)]; // depth is a multiple of W
        store_up_to(to + i, Element<From>::load(gathered), matrix.inputs - i);
    }
}

void rows(Worker& worker, const tm_matrix& matrix, const int64_t* ids, int64_t count, Tensor out) {
    worker.each(count, 4, [&](int64_t begin, int64_t end) {
        with_float_type(matrix.dtype, [&](auto from) {
            with_float_type(out.dtype, [&](auto to) {
                using To = decltype(to);
                for (int64_t i = begin; i < end; ++i) {
                    if (ids[i] < 0 || ids[i] >= matrix.outputs) {
                        worker.fail(TM_BAD_INDEX);
                    } else {
                        unpack_row<decltype(from), To>(matrix, ids[i], out.row<To>(i));
                    }
                }
            });
        });
    });
}

// --- products --------------------------------------------------------------------------------------------------------

Form form(const tm_matrix& matrix, int32_t x_dtype, int64_t M) {
    (void)M;
#if defined(__AVX512BF16__)
    if (matrix.dtype == TM_BF16 && x_dtype == TM_BF16) return FORM_BF16;
#else
    (void)matrix;
    (void)x_dtype;
#endif
    return FORM_F32;
}

// From this many rows on, numbers of 16 bits are widened once for all of them, not once for each tile of rows. The sums
// are the same to the last bit.
constexpr int64_t WIDENED_ROWS = 24;
constexpr int64_t WIDENED_BYTES = 384 << 10; // of a core's second-level cache

bool widened(const tm_matrix& matrix, int64_t M) { return W < 16 && matrix.dtype != TM_F32 && M >= WIDENED_ROWS; }

void widen(const f16* from, int64_t depth, float* to) {
    for (int64_t i = 0; i < depth * PANEL; i += W) put(to + i, Element<f16>::load(from + i));
}

void widen(const bf16* from, int64_t depth, float* to) {
    for (int64_t i = 0; i < depth; i += Bf16Weights::INPUTS, from += 2 * PANEL, to += 2 * PANEL) {
        const Bf16Weights::Vectors pair = Bf16Weights::load(reinterpret_cast<const char*>(from));
        for (int64_t v = 0; v < V; ++v) put(to + v * W, pair.even[v]), put(to + PANEL + v * W, pair.odd[v]);
    }
}

template <class E> Panels widened_panels(Panels made, int64_t bytes, int64_t M, Form form, char* scratch) {
    for (int64_t i = 0; i < made.count; ++i)
        widen(reinterpret_cast<const E*>(made.data + i * made.bytes), made.depth, reinterpret_cast<float*>(scratch + i * bytes));
    return {scratch, bytes, made.count, made.depth, pick_multiply<float>(M, form)};
}

decltype(Panels::multiply) multiply_of(const tm_matrix& matrix, int64_t M, Form form) {
    if (matrix.dtype == TM_BF16) return pick_multiply<bf16>(M, form);
    return matrix.dtype == TM_F16 ? pick_multiply<f16>(M, form) : pick_multiply<float>(M, form);
}

Panels open(const tm_matrix& matrix, int64_t first, int64_t count, int64_t M, Form form, char* scratch) {
    const int64_t size = panel_bytes(matrix);
    const Panels stored{static_cast<const char*>(matrix.data) + first * size, size, count, depth_of(matrix),
                        multiply_of(matrix, M, form)};
    if (scratch == nullptr || !widened(matrix, M)) return stored;
    const int64_t bytes = float_panel_bytes(matrix);
    return matrix.dtype == TM_BF16 ? widened_panels<bf16>(stored, bytes, M, form, scratch)
                                   : widened_panels<f16>(stored, bytes, M, form, scratch);
}

int64_t scratch(const tm_matrix& matrix, int64_t count, int64_t M) {
    return widened(matrix, M) ? count * float_panel_bytes(matrix) : 0;
}

int64_t together(const tm_matrix& matrix, int64_t M) {
    const int64_t fit = WIDENED_BYTES / float_panel_bytes(matrix);
    if (widened(matrix, M)) return maximum<int64_t>(1, minimum<int64_t>(4, fit));
    if (M > STREAM_ROWS) return 4;
    // Streaming: enough bytes that drawing a ticket costs nothing, few enough that the threads end together.
    return maximum<int64_t>(1, minimum<int64_t>(8, 32768 / panel_bytes(matrix)));
}

} // namespace

const Layout PANELS_LAYOUT = {form, open, scratch, together};
const Packing PANELS_PACKING = {bytes, pack, rows};

} // namespace tramontane::TM_ISA
