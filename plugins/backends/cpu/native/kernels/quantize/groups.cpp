// SPDX-License-Identifier: Apache-2.0
// Groups of codes whose scales (and zero points, or offsets) lie beside them: ranges, half-quadratic fits, tables of 16
// values, and OCP's microscaling type. Formulas are those of the schemes in the core, and of its quantization/hqq.py.
#include "kernels/functions.h"
#include "kernels/quantize/rules.h"

namespace tramontane::TM_ISA {

namespace {

template <int N> void extremes(const float* values, VF& low, VF& high) {
    low = high = at(values, 0);
    for (int i = 1; i < N; ++i) high = max_v(high, at(values, i)), low = min_v(low, at(values, i));
}

VF as_stored(VF v, int32_t dtype) {
    VF found = v;
    with_float_type(dtype, [&](auto type) { found = Element<decltype(type)>::round(v); });
    return found;
}

// Codes of `bits` bits, lowest first, of every lane.
template <int N> void put_codes(const Batch& batch, const float* codes, int bits) {
    Byte all[W * N];
    as_bytes<N>(codes, 0, all);
    for (int lane = 0; lane < batch.lanes; ++lane)
        for (int i = 0; i < N; i += 8) {
            uint64_t eight = 0;
            for (int j = 7; j >= 0; --j) eight = eight << bits | all[lane * N + i + j];
            memcpy(batch.to[lane] + i / 8 * bits, &eight, static_cast<size_t>(bits));
        }
}

// The range of a group from the first code to the last.
template <int N> VF range_scale(const tm_quantize& asked, const Batch& batch, VF& low) {
    VF high;
    extremes<N>(batch.values, low, high);
    low = low + zero(); // which zero it is would depend on who looks for it
    const VF scale = as_stored((high - low) / splat(static_cast<float>((1 << asked.bits) - 1)), asked.scale_dtype);
    return scale == zero() ? splat(1.0f) : scale;
}

template <int N> Beside pack_range(const tm_quantize& asked, const Batch& batch) {
    const float top = static_cast<float>((1 << asked.bits) - 1);
    VF low;
    const VF scale = range_scale<N>(asked, batch, low), offset = as_stored(low, asked.scale_dtype);
    float codes[N * W];
    for (int i = 0; i < N; ++i) set(codes, i, rounded((at(batch.values, i) - offset) / scale, 0, top));
    put_codes<N>(batch, codes, asked.bits);
    return {scale, offset};
}

// ln x for positive x that are not subnormal, to a few units in the last place (Cephes' polynomial).
VF log_v(VF x) {
    VU bits = (VU)x;
    VI power = (VI)(bits >> 23) - 126;
    VF m = (VF)((bits & 0x7fffff) | 0x3f000000); // [0.5, 1)
    const VI small = m < splat(0.70710678f);
    m = small ? m + m : m;
    power += small; // true is -1
    const VF r = m - splat(1.0f), s = r * r;
    VF p = splat(7.0376836292e-2f);
    for (float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                    2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
        p = fma(p, r, splat(c));
    return r + (p * r * s - splat(0.5f) * s) + __builtin_convertvector(power, VF) * splat(0.69314718f);
}

// What of an error is an outlier: shrinkage for the norm of power p.
VF outlier(VF rest, float p, float beta) {
    const VF size = abs_v(rest), floored = max_v(size, splat(1e-8f));
    const VF kept = max_v(size - exp_v(splat(p - 1) * log_v(floored)) / splat(beta), zero());
    return (VF)((VU)kept | ((VU)rest & 0x80000000));
}

// Half-quadratic quantization: zero points are fitted, scales stay those of plain rounding.
template <int N> Beside pack_hqq(const tm_quantize& asked, const Batch& batch) {
    constexpr float P = 0.7f;
    constexpr int ROUNDS = 20;
    const float top = static_cast<float>((1 << asked.bits) - 1);
    VF low;
    const VF scale = range_scale<N>(asked, batch, low);
    VF zeros = as_stored(quotient(zero() - low, scale), asked.scale_dtype), kept = zeros, best = splat(INFINITY);
    float ratio[N * W], codes[N * W], rest[N * W];
    for (int i = 0; i < N; ++i) set(ratio, i, at(batch.values, i) / scale);
    VI alive = (VI)zero() == 0;
    double beta = 10;
    for (int round = 0; round < ROUNDS; ++round, beta *= 1.01) {
        // Where no error reaches this size there is no outlier.
        const VF limit = splat(static_cast<float>(pow(beta, -1.0 / (2.0 - 0.7)) * 0.999));
        VI far = {};
        const VF error = total<N>([&](int i) {
                             const VF code = rounded(at(ratio, i) + zeros, 0, top);
                             const VF left = at(batch.values, i) - (code - zeros) * scale, size = abs_v(left);
                             set(codes, i, code), set(rest, i, left);
                             far |= size > limit;
                             return size;
                         }) /
                         splat(N);
        alive &= error < best;
        if (!any(alive)) break;
        best = alive ? error : best;
        kept = alive ? zeros : kept;
        const bool outliers = any(far);
        const VF mean = total<N>([&](int i) {
                            if (!outliers) return at(codes, i) - at(ratio, i);
                            const VF inner = at(batch.values, i) - outlier(at(rest, i), P, static_cast<float>(beta));
                            return at(codes, i) - inner / scale;
                        }) /
                        splat(N);
        zeros = mean;
    }
    kept = as_stored(kept, asked.scale_dtype);
    for (int i = 0; i < N; ++i) set(codes, i, rounded(at(ratio, i) + kept, 0, top));
    put_codes<N>(batch, codes, asked.bits);
    return {scale, kept};
}

// The nearest of 16 values after division by the largest magnitude. asked.table: 15 numbers half-way between the values
// in rising order, then the 16 codes in that order.
template <int N> Beside pack_table(const tm_quantize& asked, const Batch& batch) {
    VF scale = zero();
    for (int i = 0; i < N; ++i) scale = max_v(abs_v(at(batch.values, i)), scale);
    scale = as_stored(scale, asked.scale_dtype);
    float codes[N * W];
    for (int i = 0; i < N; ++i) {
        const VF unit = quotient(at(batch.values, i), scale);
        VF code = splat(asked.table[15]);
        for (int k = 0; k < 15; ++k) code = unit > splat(asked.table[k]) ? splat(asked.table[16 + k]) : code;
        set(codes, i, code);
    }
    put_codes<N>(batch, codes, 4);
    return {scale, zero()};
}

// MXFP4: a power of two per group, by the exponent of the largest magnitude; ties to the even code.
Beside pack_mxfp4(const tm_quantize&, const Batch& batch) {
    constexpr int N = 32;
    constexpr float MIDDLES[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
    VF largest = zero();
    for (int i = 0; i < N; ++i) largest = max_v(abs_v(at(batch.values, i)), largest);
    const VI exponent = (VI)((VU)largest >> 23) - 2; // biased; the largest power of two in e2m1 is 4
    const VI biased = exponent < 0 ? (VI){} : exponent;
    const VF inverse = (VF)((254 - biased) << 23); // a division by a power of two, since its reciprocal is exact
    float codes[N * W];
    for (int i = 0; i < N; ++i) {
        const VF value = at(batch.values, i), size = abs_v(value) * inverse;
        VI code = (VI)((VU)value >> 31) << 3;
        for (int k = 0; k < 7; ++k) code -= k % 2 ? size >= splat(MIDDLES[k]) : size > splat(MIDDLES[k]);
        set(codes, i, __builtin_convertvector(code, VF));
    }
    put_codes<N>(batch, codes, 4);
    return {__builtin_convertvector(biased, VF), zero()};
}

} // namespace

GroupRule group_rule(const tm_quantize& asked) {
    switch (asked.rule) {
    case TM_PACK_RANGE: return {64, pack_range<64>};
    case TM_PACK_HQQ: return {64, pack_hqq<64>};
    case TM_PACK_TABLE: return {64, pack_table<64>};
    default: return {32, pack_mxfp4};
    }
}

} // namespace tramontane::TM_ISA
