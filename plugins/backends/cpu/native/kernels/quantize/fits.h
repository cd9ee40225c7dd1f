// SPDX-License-Identifier: Apache-2.0
// Scales (and minima) under which whole numbers stand best for the values of a group, by weighted squares; one group in
// each lane. The reasons, and the same formulas, are in tramontane_quant_gguf/quantizers/fits.py.
#pragma once
#include "kernels/quantize/lanes.h"

namespace tramontane::TM_ISA {

constexpr float TINY = 1e-15f; // groups whose values are all smaller are taken for zero

struct Ladder { // first, first + step ...
    float first, step;
    int count;
    float of(int number) const { return first + step * static_cast<float>(number); }
};
constexpr Ladder FINE = {-0.9f, 0.05f, 37};

// sum(w x l) and sum(w l l) for the codes that `code` gives.
template <int N, class F> inline Sums<2> weighted_sums(const float* values, const float* weights, F&& code) {
    return totals<N, 2>([&](int i) __attribute__((always_inline)) {
        const VF l = code(i), weighted = at(weights, i) * l;
        return Sums<2>{{weighted * at(values, i), weighted * l}};
    });
}

// Codes of a fit around zero; groups of next to nothing have no scale.
template <int N> inline VF without_tiny(VF scale, VF extreme, float top, float* codes) {
    const VI kept = abs_v(extreme) >= splat(TINY);
    for (int i = 0; i < N; ++i) set(codes, i, kept ? at(codes, i) : splat(-top));
    return kept ? scale : zero();
}

// Codes from -top to top - 1: x = scale * code. Returns the scale.
template <int N> inline VF fit_signed(const float* values, const float* weights, float top, float* codes) {
    const VF extreme = most_extreme<N>(values);
    VF inverse = quotient(splat(-top), extreme);
    const auto sums_under = [&](VF by) {
        return weighted_sums<N>(values, weights, [&](int i) __attribute__((always_inline)) {
            return rounded(at(values, i) * by, -top, top - 1);
        });
    };
    const Sums<2> plain = sums_under(inverse);
    VF scale = quotient(plain.of[0], plain.of[1]), best = scale * plain.of[0];
    for (int tenths = -9; tenths <= 9; ++tenths) {
        if (tenths == 0) continue;
        const VF tried = quotient(splat(-(0.1f * static_cast<float>(tenths) + top)), extreme);
        const Sums<2> sums = sums_under(tried);
        const VF cross = sums.of[0], square = sums.of[1];
        const VI better = (square > zero()) & (cross * cross > best * square);
        const VF found = quotient(cross, square);
        inverse = better ? tried : inverse;
        scale = better ? found : scale;
        best = better ? found * cross : best;
    }
    for (int i = 0; i < N; ++i) set(codes, i, rounded(at(values, i) * inverse, -top, top - 1));
    return without_tiny<N>(scale, extreme, top, codes);
}

// Codes by rounding, then changed one at a time until none is better, but five times at most. Returns their sums.
template <int N>
inline Sums<2> refined(const float* values, const float* weights, VF inverse, float least, float most, float* codes) {
    for (int i = 0; i < N; ++i) set(codes, i, rounded(at(values, i) * inverse, least, most));
    const Sums<2> sums = weighted_sums<N>(values, weights, [&](int i) __attribute__((always_inline)) { return at(codes, i); });
    VF cross = sums.of[0], square = sums.of[1];
    for (int round = 0; round < 5; ++round) {
        VI changed = {};
        for (int i = 0; i < N; ++i) {
            const VF x = at(values, i), w = at(weights, i), code = at(codes, i), wx = w * x;
            const VF cross_rest = cross - wx * code, square_rest = square - w * code * code;
            const VF tried = rounded(x * square_rest / cross_rest, least, most);
            const VF new_cross = cross_rest + wx * tried, new_square = square_rest + w * tried * tried;
            const VI better = (cross_rest > zero()) & (tried != code) & (new_square > zero()) &
                              (new_cross * new_cross * square > cross * cross * new_square);
            set(codes, i, better ? tried : code);
            cross = better ? new_cross : cross;
            square = better ? new_square : square;
            changed |= better;
        }
        if (!any(changed)) break;
    }
    return {{cross, square}};
}

// As fit_signed, weighted by the squared values.
template <int N> inline VF refine_signed(const float* values, float top, float* codes) {
    float weights[N * W];
    for (int i = 0; i < N; ++i) set(weights, i, at(values, i) * at(values, i));
    const VF extreme = most_extreme<N>(values);
    const Sums<2> sums = refined<N>(values, weights, quotient(splat(-top), extreme), -top, top - 1, codes);
    return without_tiny<N>(quotient(sums.of[0], sums.of[1]), extreme, top, codes);
}

// Codes from 0 to top for values that are not below zero: x = scale * code. Returns the scale.
template <int N> inline VF fit_positive(const float* values, const float* weights, float top, float* codes) {
    VF high = at(values, 0);
    for (int i = 1; i < N; ++i) high = max_v(high, at(values, i));
    const auto error_under = [&](VF inverse) {
        const VF scale = quotient(splat(1.0f), inverse);
        return total<N>([&](int i) __attribute__((always_inline)) {
            const VF x = at(values, i), difference = x - scale * rounded(x * inverse, 0, top);
            return at(weights, i) * difference * difference;
        });
    };
    VF inverse = quotient(splat(top), high), least = error_under(inverse);
    for (int tenths = -4; tenths <= 4; ++tenths) {
        if (tenths == 0) continue;
        const VF tried = quotient(splat(0.1f * static_cast<float>(tenths) + top), high), error = error_under(tried);
        inverse = error < least ? tried : inverse;
        least = min_v(error, least);
    }
    const Sums<2> sums = refined<N>(values, weights, inverse, 0, top, codes);
    return high >= splat(TINY) ? quotient(sums.of[0], sums.of[1]) : zero();
}

struct Offset {
    VF scale, low; // x = scale * code - low
};

// Codes from 0 to top over a minimum that is not above zero; errors count absolutely or squared.
template <int N, bool ABSOLUTE>
inline Offset fit_offset(const float* values, const float* weights, float top, Ladder ladder, float* codes) {
    VF high = at(values, 0), low = high;
    for (int i = 1; i < N; ++i) high = max_v(high, at(values, i)), low = min_v(low, at(values, i));
    low = min_v(low, zero());
    const VI uneven = high > low;
    const Sums<2> plain = totals<N, 2>([&](int i) __attribute__((always_inline)) {
        return Sums<2>{{at(weights, i), at(weights, i) * at(values, i)}};
    });
    const VF weight = plain.of[0], mean = plain.of[1];
    const auto error_of = [&](auto&& code, VF scale, VF base) {
        return total<N>([&](int i) __attribute__((always_inline)) {
            const VF difference = scale * code(i) + base - at(values, i);
            return at(weights, i) * (ABSOLUTE ? abs_v(difference) : difference * difference);
        });
    };
    VF inverse = quotient(splat(top), high - low), base = low, scale = quotient(splat(1.0f), inverse);
    VF least = error_of([&](int i) { return rounded((at(values, i) - low) * inverse, 0, top); }, scale, low);
    for (int number = 0; number < ladder.count; ++number) {
        const VF tried = quotient(splat(ladder.of(number) + top), high - low);
        const Sums<3> sums = totals<N, 3>([&](int i) __attribute__((always_inline)) {
            const VF code = rounded((at(values, i) - low) * tried, 0, top), weighted = at(weights, i) * code;
            set(codes, i, code);
            return Sums<3>{{weighted, weighted * at(values, i), weighted * code}};
        });
        const VF level = sums.of[0], cross = sums.of[1], square = sums.of[2];
        const VF determinant = weight * square - level * level;
        VF new_scale = (weight * cross - mean * level) / determinant;
        VF new_low = (square * mean - level * cross) / determinant;
        const VI above = new_low > zero();
        new_scale = above ? quotient(cross, square) : new_scale;
        new_low = above ? zero() : new_low;
        const VF error = error_of([&](int i) { return at(codes, i); }, new_scale, new_low);
        const VI better = (determinant > zero()) & (error < least) & uneven;
        inverse = better ? tried : inverse;
        base = better ? low : base;
        scale = better ? new_scale : scale;
        low = better ? new_low : low;
        least = better ? error : least;
    }
    for (int i = 0; i < N; ++i) set(codes, i, rounded((at(values, i) - base) * inverse, 0, top));
    return {scale, zero() - low};
}

} // namespace tramontane::TM_ISA
