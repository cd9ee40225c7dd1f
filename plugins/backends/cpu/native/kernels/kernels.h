// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set. Each runs on all workers of a region; values come inputs first.
#pragma once
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tramontane::TM_ISA {

void embed(Worker&, const Call&);         // ids -> rows                                    tm_embed
void take_rows(Worker&, const Call&);     // x, rows -> y                                   no parameters
void linear(Worker&, const Call&);        // x -> y                                         tm_linear
Need linear_need(const Call&);
void rms_norm(Worker&, const Call&);      // x -> y                                         tm_norm
void add_rms_norm(Worker&, const Call&);  // x, residual -> y, sum                          tm_norm
void layer_norm(Worker&, const Call&);    // x -> y                                         tm_norm
void rope_angles(Worker&, const Call&);   // positions -> angles                            tm_rope_angles
void rotate(Worker&, const Call&);        // q, k, angles -> q, k                           tm_rotate
void rotate_write(Worker&, const Call&);  // q, k, v, angles -> q; writes the cache         tm_rotate_write
void cache_write(Worker&, const Call&);   // k, v -> nothing; writes the cache              tm_cache_write
void attend(Worker&, const Call&);        // q -> y; reads the cache                        tm_attend
Need attend_need(const Call&);
void activate_all(Worker&, const Call&);  // x -> y                                         tm_pointwise
void gated_activate(Worker&, const Call&);// gate and up side by side -> y                  tm_pointwise
void add(Worker&, const Call&);           // a, b -> y                                      no parameters
void multiply(Worker&, const Call&);      // a, b -> y; b may be one row, or one column     no parameters
void scale(Worker&, const Call&);         // x -> y                                         tm_pointwise
void softcap(Worker&, const Call&);       // x -> y                                         tm_pointwise
void router(Worker&, const Call&);        // x -> weights, ids                              tm_router
Need router_need(const Call&);
void experts(Worker&, const Call&);       // x, weights, ids -> y                           tm_experts
Need experts_need(const Call&);
void latent_write(Worker&, const Call&);  // latent, key -> nothing; writes the cache       tm_latent_write
void attend_latent(Worker&, const Call&); // q, its rotated part -> y; reads the cache      tm_attend_latent
Need attend_latent_need(const Call&);
void causal_conv(Worker&, const Call&);   // x -> y; advances the states                    tm_causal_conv
Need causal_conv_need(const Call&);
void gated_delta(Worker&, const Call&);   // q, k, v, write, keep -> y; advances the states tm_gated_delta
Need gated_delta_need(const Call&);

// Not a kernel of steps: draws tokens from logits.
void draw(Worker&, const tm_draw&);
Need draw_need(const tm_draw&);
// Not a kernel: reads memory as fast as it comes, one sum for each mebibyte.
void read(Worker&, const void* data, int64_t bytes, double* sums);

// Rows that one ticket is worth, where a row costs about `bytes` of memory traffic.
inline int64_t rows_per_ticket(int64_t bytes) { return maximum<int64_t>(1, 32768 / maximum<int64_t>(1, bytes)); }

} // namespace tramontane::TM_ISA
