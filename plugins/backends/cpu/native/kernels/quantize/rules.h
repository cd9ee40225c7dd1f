// SPDX-License-Identifier: Apache-2.0
// What packs a type: blocks of ggml, or groups of codes whose scales lie beside them.
#pragma once
#include "kernels/quantize/lanes.h"
#include "kernels/table.h"

namespace tramontane::TM_ISA {

// W blocks, or groups, of which `lanes` are real.
struct Batch {
    const float* values;
    const float* importance; // how much errors count, or null
    const float* mean;       // of the squares of each lane's row, where a rule asks for it
    int lanes;
    Byte* const* to; // where each lane's block, or its codes, begin
};

struct BlockRule {
    int block, bytes; // elements and bytes of a block
    void (*pack)(const Batch&);
    bool by_row; // importances are weighed by the mean square of the row
};

// Numbers beside the codes of each lane's group.
struct Beside {
    VF scale, zero;
};

struct GroupRule {
    int group; // elements
    Beside (*pack)(const tm_quantize&, const Batch&);
};

BlockRule k_rule(int32_t rule);     // TM_PACK_Q2_K to TM_PACK_Q6_K
BlockRule small_rule(int32_t rule, bool weighed); // TM_PACK_Q4_0 to TM_PACK_Q8_0
BlockRule iq4_rule(int32_t rule);   // TM_PACK_IQ4_NL, TM_PACK_IQ4_XS
GroupRule group_rule(const tm_quantize& asked);

void quantize(Worker& worker, const tm_quantize& asked);
int64_t quantize_need(const tm_quantize& asked); // bytes that all workers share

} // namespace tramontane::TM_ISA
