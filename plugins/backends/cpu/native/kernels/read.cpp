// SPDX-License-Identifier: Apache-2.0
// Reading memory and doing nothing else: the rate that products over weights are measured against.
#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t PIECE = 1 << 20;
constexpr int64_t VECTOR = static_cast<int64_t>(sizeof(VF));
constexpr int64_t AHEAD = 1024;

float read_piece(const char* data, int64_t bytes) {
    VF sums[4] = {zero(), zero(), zero(), zero()};
    for (int64_t at = 0; at + 4 * VECTOR <= bytes; at += 4 * VECTOR)
        for (int i = 0; i < 4; ++i) {
            __builtin_prefetch(data + at + i * VECTOR + AHEAD);
            sums[i] += get<VF>(data + at + i * VECTOR);
        }
    return sum(sums[0] + sums[1] + sums[2] + sums[3]);
}

} // namespace

void read(Worker& worker, const void* data, int64_t bytes, double* sums) {
    worker.each(ceil_div(bytes, PIECE), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            sums[i] = read_piece(static_cast<const char*>(data) + i * PIECE, minimum(PIECE, bytes - i * PIECE));
    });
}

} // namespace tramontane::TM_ISA
