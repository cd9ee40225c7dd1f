// SPDX-License-Identifier: Apache-2.0
// Types of 32 elements: rounded to nearest, or fitted where importances are known. Q8_0 always rounds.
#include "kernels/quantize/fits.h"
#include "kernels/quantize/rules.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int N = 32;

void weigh(const Batch& batch, float* weights) {
    const VF mean = get<VF>(batch.mean);
    for (int i = 0; i < N; ++i)
        set(weights, i, at(batch.importance, i) * sqrt_v(mean + at(batch.values, i) * at(batch.values, i)));
}

// Codes around the middle of `BITS` bits: the value of largest magnitude becomes 0.
template <int BITS, bool WEIGHED> VF signed_codes(const Batch& batch, float* codes) {
    constexpr float TOP = 1 << (BITS - 1);
    if constexpr (WEIGHED) {
        float weights[N * W];
        weigh(batch, weights);
        const VF scale = fit_signed<N>(batch.values, weights, TOP, codes);
        for (int i = 0; i < N; ++i) set(codes, i, at(codes, i) + splat(TOP));
        return scale;
    } else {
        const VF scale = most_extreme<N>(batch.values) / splat(-TOP), inverse = quotient(splat(1.0f), scale);
        for (int i = 0; i < N; ++i)
            set(codes, i, truncated(bounded(at(batch.values, i) * inverse + splat(TOP + 0.5f), 0, 2 * TOP - 1)));
        return scale;
    }
}

// Codes over a minimum. `low` is added.
template <int BITS, bool WEIGHED> VF offset_codes(const Batch& batch, float* codes, VF& low) {
    constexpr float TOP = (1 << BITS) - 1;
    if constexpr (WEIGHED) {
        float weights[N * W];
        weigh(batch, weights);
        const Offset fit = fit_offset<N, false>(batch.values, weights, TOP, FINE, codes);
        low = zero() - fit.low;
        return fit.scale;
    } else {
        VF high = at(batch.values, 0);
        low = high;
        for (int i = 1; i < N; ++i)
            high = max_v(high, at(batch.values, i)), low = min_v(low, at(batch.values, i));
        high = high + zero(), low = low + zero(); // which zero it is would depend on who looks for it
        const VF scale = (high - low) / splat(TOP), inverse = quotient(splat(1.0f), scale);
        for (int i = 0; i < N; ++i)
            set(codes, i, truncated(bounded((at(batch.values, i) - low) * inverse + splat(0.5f), 0, TOP)));
        return scale;
    }
}

// Fifth bits if there are any, then low halves, from `start` on.
template <int BITS> void put_codes(const Batch& batch, const float* codes, int start) {
    Byte all[W * N];
    as_bytes<N>(codes, 0, all);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        const Byte* of = all + lane * N;
        Byte* to = batch.to[lane] + start;
        if constexpr (BITS == 5) {
            uint32_t high = 0;
            for (int i = 0; i < N; ++i) high |= static_cast<uint32_t>(of[i] >> 4) << i;
            memcpy(to, &high, 4);
            to += 4;
        }
        for (int i = 0; i < 16; ++i) to[i] = static_cast<Byte>((of[i] & 15) | (of[i + 16] & 15) << 4);
    }
}

template <int BITS, bool WEIGHED> void pack_signed(const Batch& batch) {
    float codes[N * W];
    put_halves(signed_codes<BITS, WEIGHED>(batch, codes), batch.to, 0, batch.lanes);
    put_codes<BITS>(batch, codes, 2);
}

template <int BITS, bool WEIGHED> void pack_offset(const Batch& batch) {
    float codes[N * W];
    VF low;
    put_halves(offset_codes<BITS, WEIGHED>(batch, codes, low), batch.to, 0, batch.lanes);
    put_halves(low, batch.to, 2, batch.lanes);
    put_codes<BITS>(batch, codes, 4);
}

void pack_q8(const Batch& batch) { // halves round away from zero
    VF high = zero();
    for (int i = 0; i < N; ++i) high = max_v(abs_v(at(batch.values, i)), high);
    const VF scale = high / splat(127.0f), inverse = quotient(splat(1.0f), scale);
    float codes[N * W];
    for (int i = 0; i < N; ++i) {
        const VF scaled = at(batch.values, i) * inverse, size = bounded(abs_v(scaled), 0, 127.5f), low = truncated(size);
        const VF up = size - low >= splat(0.5f) ? low + splat(1.0f) : low;
        set(codes, i, scaled < zero() ? zero() - up : up);
    }
    Byte all[W * N];
    as_bytes<N>(codes, 0, all);
    put_halves(scale, batch.to, 0, batch.lanes);
    for (int lane = 0; lane < batch.lanes; ++lane) memcpy(batch.to[lane] + 2, all + lane * N, N);
}

template <bool WEIGHED> BlockRule rule_of(int32_t rule) {
    switch (rule) {
    case TM_PACK_Q4_0: return {N, 18, pack_signed<4, WEIGHED>, WEIGHED};
    case TM_PACK_Q5_0: return {N, 22, pack_signed<5, WEIGHED>, WEIGHED};
    case TM_PACK_Q4_1: return {N, 20, pack_offset<4, WEIGHED>, WEIGHED};
    default: return {N, 24, pack_offset<5, WEIGHED>, WEIGHED};
    }
}

} // namespace

BlockRule small_rule(int32_t rule, bool weighed) {
    if (rule == TM_PACK_Q8_0) return {N, 34, pack_q8, false};
    return weighed ? rule_of<true>(rule) : rule_of<false>(rule);
}

} // namespace tramontane::TM_ISA
