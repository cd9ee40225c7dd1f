// SPDX-License-Identifier: Apache-2.0
// Q2_K to Q6_K: blocks of 256 in groups, each with a scale (and a minimum) by a fit; those are whole numbers under one
// factor of the block, and codes are rounded anew under the scales as they are stored.
#include "kernels/quantize/fits.h"
#include "kernels/quantize/rules.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int BLOCK = 256;

// The mean of the squares of a block, summed by groups of N.
template <int N> VF mean_square(const float* values) {
    float sums[BLOCK / N * W];
    for (int s = 0; s < BLOCK / N; ++s)
        set(sums, s, total<N>([&](int i) { return at(values, s * N + i) * at(values, s * N + i); }));
    return total<BLOCK / N>([&](int s) { return at(sums, s); }) / splat(BLOCK);
}

// Importances, more for larger elements: in place of them. `factor` says how much the block's mean square counts.
template <int N> void sensitive(const Batch& batch, float factor, float* weights) {
    const VF mean = splat(factor) * mean_square<N>(batch.values);
    for (int i = 0; i < BLOCK; ++i)
        set(weights, i, at(batch.importance, i) * sqrt_v(mean + at(batch.values, i) * at(batch.values, i)));
}

// Sums of the weights of each group.
template <int N> void group_sums(const float* weights, float* sums) {
    for (int s = 0; s < BLOCK / N; ++s) set(sums, s, total<N>([&](int i) { return at(weights, s * N + i); }));
}

// --- Q2_K, Q4_K, Q5_K -------------------------------------------------------------------------------------------------

template <int S> struct Scales { // whole numbers of each group under a factor
    float of[S * W];
    VF factor;
};

// Whole numbers whose largest is `top`, for values that are not below zero.
template <int S> void whole(const float* values, float top, Scales<S>& made) {
    VF high = at(values, 0);
    for (int s = 1; s < S; ++s) high = max_v(high, at(values, s));
    high = max_v(high, zero());
    const VF inverse = quotient(splat(top), high);
    for (int s = 0; s < S; ++s) set(made.of, s, rounded(at(values, s) * inverse, 0, top));
    made.factor = high / splat(top);
}

struct Q2 {
    static constexpr int S = 16, TOP = 3, SCALE_TOP = 15;
    static constexpr bool BY_MAGNITUDE = true;
    static constexpr Ladder LADDER = {-0.5f, 0.1f, 16};
    static constexpr float SPREAD = 1;
};
struct Q4 {
    static constexpr int S = 8, TOP = 15, SCALE_TOP = 63;
    static constexpr bool BY_MAGNITUDE = false;
    static constexpr Ladder LADDER = {-1.0f, 0.1f, 21};
    static constexpr float SPREAD = 2;
};
struct Q5 : Q4 {
    static constexpr int TOP = 31;
    static constexpr Ladder LADDER = {-0.5f, 0.1f, 16};
};

template <class K> struct Stored {
    float codes[BLOCK * W];
    Scales<K::S> scales, lows;
};

template <class K> void fit_evenly(const Batch& batch, Stored<K>& made) {
    constexpr int N = BLOCK / K::S;
    float weights[N * W], scale[K::S * W], low[K::S * W];
    for (int s = 0; s < K::S; ++s) {
        const float* group = batch.values + s * N * W;
        const VF spread = K::BY_MAGNITUDE
                              ? zero()
                              : sqrt_v(total<N>([&](int i) { return at(group, i) * at(group, i); }) / splat(N));
        for (int i = 0; i < N; ++i) set(weights, i, spread + abs_v(at(group, i)));
        const Offset fit =
            fit_offset<N, K::BY_MAGNITUDE>(group, weights, K::TOP, K::LADDER, made.codes + s * N * W);
        set(scale, s, fit.scale), set(low, s, fit.low);
    }
    whole<K::S>(scale, K::SCALE_TOP, made.scales);
    whole<K::S>(low, K::SCALE_TOP, made.lows);
}

template <class K> void fit_weighed(const Batch& batch, Stored<K>& made) {
    constexpr int N = BLOCK / K::S;
    float weights[BLOCK * W], sums[K::S * W], scale[K::S * W], low[K::S * W];
    sensitive<N>(batch, K::SPREAD, weights);
    group_sums<N>(weights, sums);
    for (int s = 0; s < K::S; ++s) {
        const int64_t from = s * N * W;
        const Offset fit = fit_offset<N, false>(batch.values + from, weights + from, K::TOP, FINE, made.codes + from);
        set(scale, s, fit.scale), set(low, s, fit.low);
    }
    made.scales.factor = fit_positive<K::S>(scale, sums, K::SCALE_TOP, made.scales.of);
    made.lows.factor = fit_positive<K::S>(low, sums, K::SCALE_TOP, made.lows.of);
}

// Bytes of codes [W][256], scales and minima [W][S].
template <class K> struct Bytes {
    Byte codes[W * BLOCK], scales[W * K::S], lows[W * K::S];
};

template <class K> void fit(const Batch& batch, int factors_at, Bytes<K>& bytes) {
    constexpr int N = BLOCK / K::S;
    Stored<K> made;
    if (batch.importance == nullptr) {
        fit_evenly(batch, made);
    } else {
        fit_weighed(batch, made);
    }
    const VF factor = as_half(made.scales.factor), low_factor = as_half(made.lows.factor);
    for (int s = 0; s < K::S; ++s) {
        const VF unit = factor * at(made.scales.of, s), base = low_factor * at(made.lows.of, s);
        for (int i = s * N; i < (s + 1) * N; ++i) {
            const VF again = rounded((at(batch.values, i) + base) / unit, 0, K::TOP);
            set(made.codes, i, unit != zero() ? again : at(made.codes, i));
        }
    }
    as_bytes<BLOCK>(made.codes, 0, bytes.codes);
    as_bytes<K::S>(made.scales.of, 0, bytes.scales);
    as_bytes<K::S>(made.lows.of, 0, bytes.lows);
    put_halves(made.scales.factor, batch.to, factors_at, batch.lanes);
    put_halves(made.lows.factor, batch.to, factors_at + 2, batch.lanes);
}

void pack_q2(const Batch& batch) {
    Bytes<Q2> bytes;
    fit(batch, 80, bytes);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        Byte* to = batch.to[lane];
        const Byte *codes = bytes.codes + lane * BLOCK, *scales = bytes.scales + lane * 16, *lows = bytes.lows + lane * 16;
        for (int s = 0; s < 16; ++s) to[s] = static_cast<Byte>(scales[s] | lows[s] << 4);
        for (int h = 0; h < 2; ++h)
            for (int i = 0; i < 32; ++i) {
                const Byte* of = codes + h * 128 + i;
                to[16 + h * 32 + i] = static_cast<Byte>(of[0] | of[32] << 2 | of[64] << 4 | of[96] << 6);
            }
    }
}

// Six bits of each scale and minimum in 12 bytes.
void put_six_bits(const Byte* scales, const Byte* lows, Byte* to) {
    for (int s = 0; s < 4; ++s) {
        to[s] = static_cast<Byte>(scales[s] | (scales[s + 4] >> 4) << 6);
        to[4 + s] = static_cast<Byte>(lows[s] | (lows[s + 4] >> 4) << 6);
        to[8 + s] = static_cast<Byte>((scales[s + 4] & 15) | (lows[s + 4] & 15) << 4);
    }
}

// Low halves of 64 codes in 32 bytes, four times.
void put_nibbles(const Byte* codes, Byte* to) {
    for (int quarter = 0; quarter < 4; ++quarter)
        for (int i = 0; i < 32; ++i) {
            const Byte* of = codes + quarter * 64 + i;
            to[quarter * 32 + i] = static_cast<Byte>((of[0] & 15) | (of[32] & 15) << 4);
        }
}

void pack_q4(const Batch& batch) {
    Bytes<Q4> bytes;
    fit(batch, 0, bytes);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        put_six_bits(bytes.scales + lane * 8, bytes.lows + lane * 8, batch.to[lane] + 4);
        put_nibbles(bytes.codes + lane * BLOCK, batch.to[lane] + 16);
    }
}

// Bit `place` of eight times 32 codes, one bit of each in a byte.
void put_bits(const Byte* codes, int place, Byte* to) {
    for (int i = 0; i < 32; ++i) {
        int found = 0;
        for (int j = 0; j < 8; ++j) found |= (codes[j * 32 + i] >> place & 1) << j;
        to[i] = static_cast<Byte>(found);
    }
}

void pack_q5(const Batch& batch) {
    Bytes<Q5> bytes;
    fit(batch, 0, bytes);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        const Byte* codes = bytes.codes + lane * BLOCK;
        put_six_bits(bytes.scales + lane * 8, bytes.lows + lane * 8, batch.to[lane] + 4);
        put_bits(codes, 4, batch.to[lane] + 16);
        put_nibbles(codes, batch.to[lane] + 48);
    }
}

// --- Q3_K, Q6_K: signed scales of 16 groups of 16 ---------------------------------------------------------------------

struct Signed {
    float codes[BLOCK * W], scales[16 * W];
    VF factor;
};

// Scales as whole numbers, the most extreme of which is `least`; `extreme` is what that was.
void whole_signed(const float* scale, float least, Signed& made, VF& extreme) {
    extreme = most_extreme<16>(scale);
    const VF inverse = quotient(splat(least), extreme);
    for (int s = 0; s < 16; ++s) set(made.scales, s, rounded(at(scale, s) * inverse, least, -least - 1));
    made.factor = quotient(splat(1.0f), inverse);
}

void recode(const Batch& batch, float top, Signed& made) {
    const VF factor = as_half(made.factor);
    for (int s = 0; s < 16; ++s) {
        const VF unit = factor * at(made.scales, s);
        for (int i = s * 16; i < s * 16 + 16; ++i) {
            const VF again = rounded(at(batch.values, i) / unit, -top, top - 1);
            set(made.codes, i, unit != zero() ? again : at(made.codes, i));
        }
    }
}

void fit_q3(const Batch& batch, Signed& made) {
    float scale[16 * W];
    if (batch.importance == nullptr) {
        VF extreme;
        for (int s = 0; s < 16; ++s)
            set(scale, s, refine_signed<16>(batch.values + s * 16 * W, 4, made.codes + s * 16 * W));
        whole_signed(scale, -32, made, extreme);
    } else {
        float weights[BLOCK * W], sums[16 * W];
        sensitive<16>(batch, 2, weights);
        group_sums<16>(weights, sums);
        for (int s = 0; s < 16; ++s) {
            const int64_t from = s * 16 * W;
            set(scale, s, fit_signed<16>(batch.values + from, weights + from, 4, made.codes + from));
        }
        made.factor = fit_signed<16>(scale, sums, 32, made.scales);
    }
    recode(batch, 4, made);
}

// Two bits, from `bit` on, of each of four codes 32 apart.
Byte four_pairs(const Byte* codes, int bit) {
    const auto pair = [&](int i) { return codes[32 * i] >> bit & 3; };
    return static_cast<Byte>(pair(0) | pair(1) << 2 | pair(2) << 4 | pair(3) << 6);
}

void pack_q3(const Batch& batch) {
    Signed made;
    fit_q3(batch, made);
    Byte all_codes[W * BLOCK], all_scales[W * 16];
    as_bytes<BLOCK>(made.codes, 4, all_codes);
    as_bytes<16>(made.scales, 32, all_scales);
    put_halves(made.factor, batch.to, 108, batch.lanes);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        Byte* to = batch.to[lane];
        const Byte *codes = all_codes + lane * BLOCK, *scales = all_scales + lane * 16;
        put_bits(codes, 2, to);
        for (int h = 0; h < 2; ++h)
            for (int i = 0; i < 32; ++i) to[32 + h * 32 + i] = four_pairs(codes + h * 128 + i, 0);
        for (int s = 0; s < 8; ++s) to[96 + s] = static_cast<Byte>((scales[s] & 15) | (scales[s + 8] & 15) << 4);
        for (int s = 0; s < 4; ++s)
            to[104 + s] = static_cast<Byte>(
                scales[s] >> 4 | (scales[s + 4] >> 4) << 2 | (scales[s + 8] >> 4) << 4 | (scales[s + 12] >> 4) << 6);
    }
}

VF fit_q6(const Batch& batch, Signed& made) {
    float scale[16 * W], weights[16 * W];
    for (int s = 0; s < 16; ++s) {
        const float* group = batch.values + s * 16 * W;
        for (int i = 0; i < 16; ++i)
            set(weights, i,
                batch.importance == nullptr ? at(group, i) * at(group, i) : at(batch.importance, s * 16 + i));
        set(scale, s, fit_signed<16>(group, weights, 32, made.codes + s * 16 * W));
    }
    VF extreme;
    whole_signed(scale, -128, made, extreme);
    recode(batch, 32, made);
    return extreme;
}

void pack_q6(const Batch& batch) {
    Signed made;
    const VF extreme = fit_q6(batch, made);
    Byte all_codes[W * BLOCK], all_scales[W * 16];
    as_bytes<BLOCK>(made.codes, 32, all_codes);
    as_bytes<16>(made.scales, 0, all_scales);
    put_halves(made.factor, batch.to, 208, batch.lanes);
    for (int lane = 0; lane < batch.lanes; ++lane) {
        Byte* to = batch.to[lane];
        if (!(fabsf(extreme[lane]) >= TINY)) {
            memset(to, 0, 210);
            continue;
        }
        for (int h = 0; h < 2; ++h) {
            const Byte* of = all_codes + lane * BLOCK + h * 128;
            for (int i = 0; i < 64; ++i) to[h * 64 + i] = static_cast<Byte>((of[i] & 15) | (of[i + 64] & 15) << 4);
            for (int i = 0; i < 32; ++i) to[128 + h * 32 + i] = four_pairs(of + i, 4);
        }
        memcpy(to + 192, all_scales + lane * 16, 16);
    }
}

} // namespace

BlockRule k_rule(int32_t rule) {
    switch (rule) {
    case TM_PACK_Q2_K: return {BLOCK, 84, pack_q2, false};
    case TM_PACK_Q3_K: return {BLOCK, 110, pack_q3, false};
    case TM_PACK_Q4_K: return {BLOCK, 144, pack_q4, false};
    case TM_PACK_Q5_K: return {BLOCK, 176, pack_q5, false};
    default: return {BLOCK, 210, pack_q6, false};
    }
}

} // namespace tramontane::TM_ISA
