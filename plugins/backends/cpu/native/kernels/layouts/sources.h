// SPDX-License-Identifier: Apache-2.0
// Which source each coding's rows come from.
#pragma once
#include "kernels/layouts/grid_sources.h"

namespace tramontane::TM_ISA {

// Calls f with the source of a matrix's coding.
template <class F> inline void with_source(const tm_matrix& matrix, F&& f) {
    switch (matrix.sizes[0]) {
    case TM_Q8_0: return f(Q8Source{});
    case TM_Q4_0: case TM_IQ4_NL: return f(SmallSource<1, false>{});
    case TM_Q4_1: return f(SmallSource<2, false>{});
    case TM_Q5_0: return f(SmallSource<1, true>{});
    case TM_Q5_1: return f(SmallSource<2, true>{});
    case TM_Q4_K: return f(KSource<false>{});
    case TM_Q5_K: return f(KSource<true>{});
    case TM_Q6_K: return f(Q6KSource{});
    case TM_Q2_K: return f(Q2KSource{});
    case TM_Q3_K: return f(Q3KSource{});
    case TM_IQ4_XS: return f(Iq4XsSource{});
    case TM_TQ1_0: return f(Tq1Source{});
    case TM_TQ2_0: return f(Tq2Source{});
    case TM_MXFP4: return f(Mxfp4Source{});
    case TM_NVFP4: return f(Nvfp4Source{});
    case TM_IQ1_S: return f(Iq1SSource{});
    case TM_IQ1_M: return f(Iq1MSource{});
    case TM_IQ2_XXS: return f(SignedSource<Iq2Xxs>{});
    case TM_IQ2_XS: return f(SignedSource<Iq2Xs>{});
    case TM_IQ2_S: return f(SignedSource<Iq2S>{});
    case TM_IQ3_XXS: return f(SignedSource<Iq3Xxs>{});
    case TM_IQ3_S: return f(SignedSource<Iq3S>{});
    case TM_AFFINE4: case TM_AFFINE4_ZERO: case TM_AFFINE4_OFFSET: case TM_TABLE4:
        return with_code_source(matrix.sizes[3] == 0 ? 4 : matrix.sizes[3], f);
    default: return with_code_source(matrix.sizes[3] == 0 ? 8 : matrix.sizes[3], f);
    }
}

} // namespace tramontane::TM_ISA
