// SPDX-License-Identifier: Apache-2.0
// Which instruction sets this processor, operating system and build have, and which one is used.
#pragma once

namespace tramontane {

struct KernelTable; // kernels/table.h

// Levels in rising order. `amx` is `avx512bf16` plus tiles: its kernels ask `amx_enabled()`.
enum class Isa { portable, avx2, avx512, avx512bf16, amx };

// Uses a level from now on: `wanted`, or the best where that is null or empty. False if it cannot run here.
bool choose_isa(const char* wanted);
const char* current_isa();
bool can_run(const char* name);

// Kernels of the chosen level; chooses the best if nobody has chosen yet.
const KernelTable& kernel_table();

// Tiles may be used by kernels of the chosen level.
bool amx_enabled();

} // namespace tramontane
