// SPDX-License-Identifier: Apache-2.0
// Elementary functions of vectors: exponential, hyperbolic tangent, error function, and the activations made of them.
// Relative errors are a few units in the last place of float32 unless said otherwise.
#pragma once
#include "kernels/simd.h"

namespace tramontane::TM_ISA {

// e^x: 2^n * e^r with n = round(x / ln 2), e^r by its Taylor polynomial of degree 7 on |r| <= 0.35 (error 3e-8).
inline VF exp_v(VF x) {
    const VF bounded = min_v(max_v(x, splat(-87.3f)), splat(88.3f));
    const VF magic = splat(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const VF shifted = fma(bounded, splat(1.44269504f), magic);
    const VF n = shifted - magic;
    const VF r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), bounded)); // ln 2 in two parts
    VF p = splat(1.0f / 5040);
    p = fma(p, r, splat(1.0f / 720));
    p = fma(p, r, splat(1.0f / 120));
    p = fma(p, r, splat(1.0f / 24));
    p = fma(p, r, splat(1.0f / 6));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    const VI power = (((VI)shifted - (VI)magic) + 127) << 23;
    const VF value = p * (VF)power;
    return x < splat(-87.3f) ? zero() : (x == x ? value : x);
}

// tanh x = 1 - 2 / (e^2x + 1); near zero, where that loses digits, by its series.
inline VF tanh_v(VF x) {
    const VF far = splat(1.0f) - splat(2.0f) / (exp_v(x + x) + splat(1.0f));
    const VF s = x * x;
    const VF near = x * fma(s, fma(s, fma(s, splat(-17.0f / 315), splat(2.0f / 15)), splat(-1.0f / 3)), splat(1.0f));
    return s < splat(0.04f) ? near : far;
}

inline VF sigmoid_v(VF x) { return splat(1.0f) / (splat(1.0f) + exp_v(zero() - x)); }

// erf x by formula 7.1.26 of Abramowitz and Stegun: absolute error below 1.5e-7.
inline VF erf_v(VF x) {
    const VF a = max_v(x, zero() - x);
    const VF t = splat(1.0f) / fma(a, splat(0.3275911f), splat(1.0f));
    VF p = splat(1.061405429f);
    p = fma(p, t, splat(-1.453152027f));
    p = fma(p, t, splat(1.421413741f));
    p = fma(p, t, splat(-0.284496736f));
    p = fma(p, t, splat(0.254829592f));
    const VF value = splat(1.0f) - p * t * exp_v(zero() - a * a);
    return x < zero() ? zero() - value : value;
}

template <int KIND> inline VF activation(VF x) {
    if (KIND == TM_SILU) return x * sigmoid_v(x);
    if (KIND == TM_GELU) return x * splat(0.5f) * (splat(1.0f) + erf_v(x * splat(0.70710678f)));
    if (KIND == TM_GELU_TANH) {
        const VF inner = splat(0.79788456f) * x * fma(x * x, splat(0.044715f), splat(1.0f));
        return x * splat(0.5f) * (splat(1.0f) + tanh_v(inner));
    }
    if (KIND == TM_RELU) return x < zero() ? zero() : x;
    if (KIND == TM_RELU2) return x < zero() ? zero() : x * x;
    return sigmoid_v(x);
}

inline VF activate(int32_t kind, VF x) {
    switch (kind) {
    case TM_SILU: return activation<TM_SILU>(x);
    case TM_GELU: return activation<TM_GELU>(x);
    case TM_GELU_TANH: return activation<TM_GELU_TANH>(x);
    case TM_RELU: return activation<TM_RELU>(x);
    case TM_RELU2: return activation<TM_RELU2>(x);
    default: return activation<TM_SIGMOID>(x);
    }
}

} // namespace tramontane::TM_ISA
