// SPDX-License-Identifier: Apache-2.0
// The RMS norm of one vector, shared by the kernels that norm rows and those that norm heads.
#pragma once
#include "kernels/simd.h"

namespace tramontane::TM_ISA {

template <class T> inline float mean_square(const T* x, int64_t width) {
    VF sums[2] = {zero(), zero()};
    int64_t i = 0;
    for (; i + 2 * W <= width; i += 2 * W) {
        const VF a = Element<T>::load(x + i), b = Element<T>::load(x + i + W);
        sums[0] = fma(a, a, sums[0]);
        sums[1] = fma(b, b, sums[1]);
    }
    for (; i < width; i += W) {
        const VF a = load_up_to(x + i, width - i);
        sums[0] = fma(a, a, sums[0]);
    }
    return sum(sums[0] + sums[1]) / static_cast<float>(width);
}

// y = x / rms(x) * weight; x and y may be the same. `late_cast` multiplies before rounding to T, otherwise the
// normalized value is rounded first, as the published models of either kind do.
template <class T> inline void rms_row(const tm_norm& norm, const T* x, T* y, int64_t width) {
    const float factor = 1.0f / sqrtf(mean_square(x, width) + norm.eps);
    with_activation_type(norm.weight_dtype, [&](auto type) {
        using S = decltype(type);
        const S* weight = static_cast<const S*>(norm.weight);
        for (int64_t i = 0; i < width; i += W) {
            const int64_t left = width - i;
            VF value = load_up_to(x + i, left) * factor;
            if (weight != nullptr) {
                if (!norm.late_cast) value = Element<T>::round(value);
                value *= load_up_to(weight + i, left);
            }
            store_up_to(y + i, value, left);
        }
    });
}

} // namespace tramontane::TM_ISA
