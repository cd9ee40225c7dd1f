// SPDX-License-Identifier: Apache-2.0
// The tables of one instruction set: kernels by number, layouts by number.
#include "kernels/table.h"

#include "kernels/kernels.h"
#include "kernels/layouts/layout.h"
#include "kernels/quantize/rules.h"

namespace tramontane::TM_ISA {

const Layout& layout_of(const tm_matrix& matrix) {
    // In the order of tm_layout. Rows as a checkpoint stores them are only looked up, never multiplied.
    static const Layout* const LAYOUTS[TM_LAYOUTS] = {nullptr, &PANELS_LAYOUT, &BLOCKS_LAYOUT, &CODES_LAYOUT};
    return *LAYOUTS[matrix.layout];
}

extern const KernelTable TABLE;
const KernelTable TABLE = {
    {
        // In the order of tm_kernel.
        {embed, nullptr},
        {linear, linear_need},
        {take_rows, nullptr},
        {rms_norm, nullptr},
        {add_rms_norm, nullptr},
        {layer_norm, nullptr},
        {rope_angles, nullptr},
        {rotate, nullptr},
        {rotate_write, nullptr},
        {cache_write, nullptr},
        {attend, attend_need},
        {activate_all, nullptr},
        {gated_activate, nullptr},
        {add, nullptr},
        {multiply, nullptr},
        {scale, nullptr},
        {softcap, nullptr},
        {router, router_need},
        {experts, experts_need},
        {latent_write, nullptr},
        {attend_latent, attend_latent_need},
        {causal_conv, causal_conv_need},
        {gated_delta, gated_delta_need},
    },
    // In the order of tm_layout.
    {ROW_MAJOR_PACKING, PANELS_PACKING, BLOCKS_PACKING, CODES_PACKING},
    {quantize, quantize_need},
    {draw, draw_need},
    read,
};

} // namespace tramontane::TM_ISA
