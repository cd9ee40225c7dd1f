// SPDX-License-Identifier: Apache-2.0
// The panel layout of floating-point numbers, for those who make panels themselves while a step runs: a panel is 16
// outputs; inputs follow one another, of bfloat16 two at a time side by side.
#pragma once
#include "isa.h"
#include "kernels/layouts/layout.h"
#include "kernels/layouts/tile.h"
#include "kernels/layouts/tiles_amx.h"

namespace tramontane::TM_ISA {

template <class E> struct Grouped {
    static constexpr int64_t VALUE = 1;
};
template <> struct Grouped<bf16> {
    static constexpr int64_t VALUE = 2;
};

// Where input i of lane l of a panel lies, in elements.
inline int64_t place(int64_t i, int64_t lane, int64_t group) { return i / group * group * PANEL + lane * group + i % group; }

// Which function multiplies panels of E with M rows of `form`.
template <class E> inline decltype(Panels::multiply) pick_multiply(int64_t M, Form form);

template <class Weights> inline decltype(Panels::multiply) pick(int64_t M) {
    return M <= STREAM_ROWS ? multiply_stream<Weights> : multiply_tiles<Weights>;
}

template <> inline decltype(Panels::multiply) pick_multiply<float>(int64_t M, Form) { return pick<F32Weights>(M); }
template <> inline decltype(Panels::multiply) pick_multiply<f16>(int64_t M, Form) { return pick<F16Weights>(M); }
template <> inline decltype(Panels::multiply) pick_multiply<bf16>(int64_t M, Form form) {
#if defined(__AVX512BF16__)
    if (form == FORM_BF16) return amx_enabled() && M >= AMX_ROWS ? multiply_amx : pick<Bf16Pairs>(M);
#else
    (void)form;
#endif
    return pick<Bf16Weights>(M);
}

// Writes a row as output `output`: its `depth` inputs, those from `width` on zero.
template <class E, class C> inline void pack_output(const C* row, int64_t width, int64_t depth, int64_t output, E* panels) {
    constexpr int64_t group = Grouped<E>::VALUE;
    E* to = panels + output / PANEL * depth * PANEL + output % PANEL * group;
    for (int64_t i = 0; i < depth; i += W) {
        E converted[W];
        Element<E>::store(converted, i < width ? load_up_to(row + i, width - i) : zero());
        for (int64_t j = 0; j < W; j += group) memcpy(to + (i + j) * PANEL, converted + j, sizeof(E) * group);
    }
}

// Writes a row as input `input` of its outputs; panels are `depth` inputs apart, `count` panels in all.
template <class E, class C>
inline void pack_input(const C* row, int64_t width, int64_t input, int64_t depth, int64_t count, E* panels) {
    constexpr int64_t group = Grouped<E>::VALUE;
    for (int64_t i = 0; i < count * PANEL; i += W) {
        const VF values = i < width ? load_up_to(row + i, width - i) : zero();
        E* to = panels + i / PANEL * depth * PANEL + place(input, i % PANEL, group);
        if (group == 1) {
            Element<E>::store(to, values);
            continue;
        }
        E converted[W];
        Element<E>::store(converted, values);
        for (int64_t j = 0; j < W; ++j) to[j * group] = converted[j];
    }
}

} // namespace tramontane::TM_ISA
