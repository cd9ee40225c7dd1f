// SPDX-License-Identifier: Apache-2.0
// IQ4_NL and IQ4_XS: scales fitted over the uneven steps of their table.
#include "kernels/quantize/fits.h"
#include "kernels/quantize/rules.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int N = 32, GROUPS = 8, BLOCK = N * GROUPS, TRIES = 7;
constexpr float STEPS[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

VF without_nan(VF v) { return v == v ? v : zero(); }

// What a ladder of 16 numbers has for the nearest step; of two as near, the larger's.
template <class F> VF by_step(VF value, F&& number) {
    VF found = splat(number(0));
    for (int k = 1; k < 16; ++k) found = value >= splat((STEPS[k - 1] + STEPS[k]) / 2) ? splat(number(k)) : found;
    return found;
}
VF nearest(VF value) {
    return by_step(value, [](int k) { return STEPS[k]; });
}
VF code_of(VF value) {
    return by_step(value, [](int k) { return static_cast<float>(k); });
}

// The best scale of a group: first with the extreme value at one end of the table, then near the other.
VF fit_steps(const float* values, const float* weights) {
    const VF extreme = most_extreme<N>(values);
    VF scale = zero(), best = zero();
    for (int attempt = -TRIES - 1; attempt <= TRIES; ++attempt) {
        const float end = attempt < -TRIES ? -STEPS[0] : STEPS[0] + static_cast<float>(attempt);
        const VF inverse = quotient(splat(end), extreme);
        const Sums<2> sums = weighted_sums<N>(values, weights, [&](int i) { return nearest(without_nan(at(values, i) * inverse)); });
        const VF cross = sums.of[0], square = sums.of[1], found = quotient(cross, square);
        const VI better = (square > zero()) & (cross * cross > best * square);
        scale = better ? found : scale;
        best = better ? found * cross : best;
    }
    return abs_v(extreme) >= splat(TINY) ? scale : zero();
}

// Squares of the elements, or importances weighed by them and by the mean square of the block.
template <int COUNT> void weigh(const Batch& batch, float* weights) {
    for (int i = 0; i < COUNT; ++i) set(weights, i, at(batch.values, i) * at(batch.values, i));
    if (batch.importance == nullptr) return;
    float sums[COUNT / N * W];
    for (int s = 0; s < COUNT / N; ++s) set(sums, s, total<N>([&](int i) { return at(weights, s * N + i); }));
    const VF mean = total<COUNT / N>([&](int s) { return at(sums, s); }) / splat(COUNT);
    for (int i = 0; i < COUNT; ++i)
        set(weights, i, at(batch.importance, i) * sqrt_v(splat(2.0f) * mean + at(weights, i)));
}

void put_codes(const Byte* codes, Byte* to) {
    for (int i = 0; i < 16; ++i) to[i] = static_cast<Byte>(codes[i] | codes[i + 16] << 4);
}

void pack_nl(const Batch& batch) {
    float weights[N * W], codes[N * W];
    weigh<N>(batch, weights);
    const VF scale = fit_steps(batch.values, weights), inverse = quotient(splat(1.0f), scale);
    for (int i = 0; i < N; ++i) set(codes, i, code_of(without_nan(at(batch.values, i) * inverse)));
    Byte all[W * N];
    as_bytes<N>(codes, 0, all);
    put_halves(scale, batch.to, 0, batch.lanes);
    for (int lane = 0; lane < batch.lanes; ++lane) put_codes(all + lane * N, batch.to[lane] + 2);
}

void pack_xs(const Batch& batch) {
    float weights[BLOCK * W], codes[BLOCK * W], scale[GROUPS * W], whole[GROUPS * W];
    weigh<BLOCK>(batch, weights);
    for (int s = 0; s < GROUPS; ++s) set(scale, s, fit_steps(batch.values + s * N * W, weights + s * N * W));
    const VF factor = most_extreme<GROUPS>(scale) / splat(-32.0f), inverse = quotient(splat(1.0f), factor);
    for (int s = 0; s < GROUPS; ++s) {
        set(whole, s, rounded(at(scale, s) * inverse, -32, 31));
        const VF by = quotient(splat(1.0f), factor * at(whole, s));
        for (int i = s * N; i < s * N + N; ++i) set(codes, i, code_of(without_nan(at(batch.values, i) * by)));
    }
    Byte all[W * BLOCK], all_scales[W * GROUPS];
    as_bytes<BLOCK>(codes, 0, all);
    as_bytes<GROUPS>(whole, 32, all_scales);
    put_halves(factor, batch.to, 0, batch.lanes);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        Byte* to = batch.to[lane];
        const Byte* scales = all_scales + lane * GROUPS;
        uint32_t high = 0;
        for (int s = 0; s < GROUPS; ++s) high |= static_cast<uint32_t>(scales[s] >> 4) << (2 * s);
        memcpy(to + 2, &high, 2);
        for (int s = 0; s < GROUPS; s += 2)
            to[4 + s / 2] = static_cast<Byte>((scales[s] & 15) | (scales[s + 1] & 15) << 4);
        for (int s = 0; s < GROUPS; ++s) put_codes(all + lane * BLOCK + s * N, to + 8 + s * 16);
    }
}

} // namespace

BlockRule iq4_rule(int32_t rule) {
    return rule == TM_PACK_IQ4_NL ? BlockRule{N, 18, pack_nl, false} : BlockRule{BLOCK, 136, pack_xs, false};
}

} // namespace tramontane::TM_ISA
