// SPDX-License-Identifier: Apache-2.0
// What a weight layout brings. To add one: a number in abi.h (tm_layout), a file beside this one that defines its
// `Layout` and `Packing`, a line in each of the two tables at the end of layouts.cpp, and a Python part in
// tramontane_backend_cpu/layouts. kernels/linear.cpp, which drives all products, need not change.
//
// All layouts speak of panels: 16 consecutive outputs (the last panel padded with zeros), which is what one 512-bit
// vector holds. A product is asked for by panels and comes back as float32, so bias, gate and rounding are done in one
// place for all layouts.
#pragma once
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tramontane::TM_ISA {

constexpr int64_t PANEL = 16;
// Inputs are padded with zeros to a multiple of this wherever a form is made: one tile row of bf16.
constexpr int64_t DEPTH = 32;

inline int64_t panels_of(const tm_matrix& matrix) { return ceil_div(matrix.outputs, PANEL); }
inline int64_t depth_of(const tm_matrix& matrix) { return round_up(matrix.inputs, DEPTH); }
// A panel brought to float32.
inline int64_t float_panel_bytes(const tm_matrix& matrix) {
    return depth_of(matrix) * PANEL * static_cast<int64_t>(sizeof(float));
}

// Bytes between rows of `bytes`: an odd number of cache lines, so that equal places of neighbouring rows do not compete
// for a few sets of a cache.
inline int64_t spaced(int64_t bytes) { return round_up(bytes, 64) + (ceil_div(bytes, 64) % 2 == 0 ? 64 : 0); }

// What the activations are turned into before a product; one form serves all parts that ask for it.
// forms.cpp makes them.
enum Form : int32_t { FORM_F32, FORM_BF16, FORM_Q8, FORMS };

struct Activations {
    const char* data;
    int64_t stride; // bytes between rows
    int64_t rows;
};

// Some panels, ready to be multiplied with any of the activations' rows.
struct Panels {
    const char* data;
    int64_t bytes; // of one panel
    int64_t count;
    int64_t depth; // inputs, padded
    // out[row - first][16 * panel + lane] for `rows` rows from `first` on; `width` floats between rows of out.
    void (*multiply)(const Panels&, const Activations&, int64_t first, int64_t rows, float* out, int64_t width);
    const tm_matrix* matrix = nullptr; // theirs, for layouts whose panels alone do not tell all
};

// M below is the number of rows of the whole product.
struct Layout {
    // What `open(..., M)` wants to be multiplied with.
    Form (*form)(const tm_matrix&, int32_t x_dtype, int64_t M);
    // Panels [first, first + count); may unpack them into `scratch`, when M makes that worth it. Panels of floats need
    // none: without it they are multiplied as they are stored.
    Panels (*open)(const tm_matrix&, int64_t first, int64_t count, int64_t M, Form form, char* scratch);
    // Bytes of scratch for `count` panels.
    int64_t (*scratch)(const tm_matrix&, int64_t count, int64_t M);
    // How many panels are best done together.
    int64_t (*together)(const tm_matrix&, int64_t M);
};

const Layout& layout_of(const tm_matrix& matrix);

extern const Layout PANELS_LAYOUT;
extern const Packing PANELS_PACKING;
extern const Layout BLOCKS_LAYOUT;
extern const Packing BLOCKS_PACKING;
extern const Layout CODES_LAYOUT;
extern const Packing CODES_PACKING;
extern const Packing ROW_MAJOR_PACKING;

} // namespace tramontane::TM_ISA
