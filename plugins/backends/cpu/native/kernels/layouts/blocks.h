// SPDX-License-Identifier: Apache-2.0
// The layout of quantized weights: panels of 16 outputs whose codes are interleaved for integer dot products, between
// their scales. blocks.cpp multiplies, block_packing.cpp fills and empties; here is what they agree on.
//
// matrix.dtype is the type of scales; sizes[0] the coding (tm_coding), sizes[1] the inputs that share scales, sizes[2]
// whether activations stay floats (only for products), sizes[3] the bits of a code as it is given to be packed, where
// those are fewer than the coding has.
#pragma once
#include "kernels/layouts/block_narrow.h"
#include "kernels/layouts/block_scales.h"

namespace tramontane::TM_ISA {

template <class C, template <class> class S> struct Coding {
    using Codes = C;
    using Scales = S<C>;
    static constexpr bool WHOLE = true;    // codes are multiplied as whole numbers
    static constexpr bool CENTERED = true; // `number` does not yet give the value before scales
};
template <template <class> class S> struct TableCoding : Coding<TableCodes, S> {
    static constexpr bool CENTERED = false;
};
template <class C> struct FloatCoding : Coding<C, Centered> {
    static constexpr bool WHOLE = false, CENTERED = false;
};

// Calls f with the Coding that a matrix is stored in.
template <class F> inline void with_coding(const tm_matrix& matrix, F&& f) {
    switch (matrix.sizes[0]) {
    case TM_Q4_0: case TM_AFFINE4: return f(Coding<Codes4, Centered>{});
    case TM_Q5_0: return f(Coding<Codes5, Centered>{});
    case TM_Q8_0: case TM_AFFINE8: return f(Coding<Codes8, Centered>{});
    case TM_Q4_1: case TM_AFFINE4_OFFSET: return f(Coding<Codes4, Shifted>{});
    case TM_Q5_1: return f(Coding<Codes5, Shifted>{});
    case TM_AFFINE8_OFFSET: return f(Coding<Codes8, Shifted>{});
    case TM_AFFINE4_ZERO: return f(Coding<Codes4, Zeroed>{});
    case TM_AFFINE8_ZERO: return f(Coding<Codes8, Zeroed>{});
    case TM_Q4_K: return f(Coding<Codes4, SubScaled>{});
    case TM_Q5_K: return f(Coding<Codes5, SubScaled>{});
    case TM_Q6_K: return f(Coding<Codes6, HalfScaled>{});
    case TM_Q2_K: return f(Coding<Codes2, HalfShifted>{});
    case TM_Q3_K: return f(Coding<Codes3, HalfScaled>{});
    case TM_IQ4_NL: return f(Coding<LookUpCodes<Codes4, UnevenSteps>, Centered>{});
    case TM_IQ4_XS: return f(Coding<LookUpCodes<Codes4, UnevenSteps>, BlockScaled>{});
    case TM_TQ1_0: case TM_TQ2_0: return f(Coding<Codes2, Centered>{});
    case TM_MXFP4: return f(Coding<LookUpCodes<Codes4, DoubledE2M1>, Centered>{});
    case TM_NVFP4: return f(Coding<LookUpCodes<Codes4, DoubledE2M1>, FloatHalves>{});
    case TM_IQ1_S: return f(Coding<Codes2, EighthShifted>{});
    case TM_IQ1_M: return f(Coding<LookUpCodes<Codes3, ShiftedTernary>, HalfScaled>{});
    case TM_IQ2_XXS: return f(Coding<LookUpCodes<Codes3, ThreeSizes>, BlockScaled>{});
    case TM_IQ2_XS: case TM_IQ2_S: return f(Coding<LookUpCodes<Codes3, ThreeSizes>, HalfScaled>{});
    case TM_IQ3_XXS: return f(Coding<LookUpCodes<Codes4, EightSizes>, BlockScaled>{});
    case TM_IQ3_S: return f(Coding<OddCodes, BlockScaled>{});
    case TM_TABLE4: return f(TableCoding<Centered>{});
    case TM_E5M2: return f(FloatCoding<E5M2Codes>{});
    default: return f(FloatCoding<E4M3Codes>{});
    }
}

// Where things lie in a matrix of one coding. A panel is one stretch that is read from its first byte to its last: the
// scales of some chunks, then their blocks, then the next scales.
struct BlockPlan {
    int64_t blocks;       // of a row
    int64_t chunk_blocks; // that share scales
    int64_t chunks;
    int64_t scale_bytes;  // of a chunk
    int64_t together;     // chunks whose scales lie side by side: as few as fill whole cache lines
    int64_t block_bytes;
    int64_t panel_bytes;

    template <class C> static BlockPlan of(const tm_matrix& matrix, C) {
        BlockPlan plan;
        plan.blocks = ceil_div(matrix.inputs, BLOCK);
        plan.chunk_blocks = matrix.sizes[1] / BLOCK;
        plan.chunks = ceil_div(plan.blocks, plan.chunk_blocks);
        plan.scale_bytes = C::Scales::bytes(matrix.dtype);
        plan.together = plan.scale_bytes % 64 == 0 ? 1 : 2; // 16 scales take 32 bytes at the least
        plan.block_bytes = C::Codes::BYTES;
        plan.panel_bytes = round_up(plan.codes_at(plan.blocks - 1) + plan.block_bytes, 64);
        return plan;
    }

    int64_t lines() const { return together * scale_bytes; } // bytes
    int64_t scales_at(int64_t chunk) const {
        const int64_t before = chunk / together * together;
        return before * chunk_blocks * block_bytes + before * scale_bytes + chunk % together * scale_bytes;
    }
    int64_t codes_at(int64_t block) const {
        return block * block_bytes + (block / (together * chunk_blocks) + 1) * lines();
    }
};

} // namespace tramontane::TM_ISA
