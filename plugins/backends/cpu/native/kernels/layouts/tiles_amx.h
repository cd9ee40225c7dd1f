// SPDX-License-Identifier: Apache-2.0
// Products on the tile unit (AMX): bfloat16 rows by bfloat16 panels, 32 rows by 32 outputs at a time.
#pragma once
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

// Tiles pay off from this many rows on; below, streaming the weights through dot products is as fast as memory.
constexpr int64_t AMX_ROWS = 5;

#if defined(__AVX512BF16__)
// Panels::multiply for panels [inputs / 2][16][2] of bfloat16.
void multiply_amx(const Panels& panels, const Activations& x, int64_t first, int64_t rows, float* out, int64_t width);

// Gives the tile unit back, so that a switch of threads need not save its registers.
void release_amx();
#endif

} // namespace tramontane::TM_ISA
