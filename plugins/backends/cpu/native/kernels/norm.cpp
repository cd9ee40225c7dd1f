// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm.h"

#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

namespace {

template <class T> void add_row(const T* a, const T* b, T* sum, int64_t width) {
    for (int64_t i = 0; i < width; i += W)
        store_up_to(sum + i, load_up_to(a + i, width - i) + load_up_to(b + i, width - i), width - i);
}

// `skipped`: elements of weight and bias before those of this vector.
template <class T> void layer_norm_row(const tm_norm& norm, int64_t skipped, const T* x, T* y, int64_t width) {
    VF sums = zero(), squares = zero();
    for (int64_t i = 0; i < width; i += W) sums += load_up_to(x + i, width - i);
    const float mean = sum(sums) / static_cast<float>(width);
    for (int64_t i = 0; i < width; i += W) {
        VF away = load_up_to(x + i, width - i) - mean;
        if (width - i < W) away = load_some(reinterpret_cast<const float*>(&away), width - i);
        squares = fma(away, away, squares);
    }
    const float factor = 1.0f / sqrtf(sum(squares) / static_cast<float>(width) + norm.eps);
    with_activation_type(norm.weight_dtype, [&](auto type) {
        using S = decltype(type);
        const S *weight = static_cast<const S*>(norm.weight) + skipped, *bias = static_cast<const S*>(norm.bias);
        if (bias != nullptr) bias += skipped;
        for (int64_t i = 0; i < width; i += W) {
            const int64_t left = width - i;
            VF value = (load_up_to(x + i, left) - mean) * factor * load_up_to(weight + i, left);
            if (bias != nullptr) value += load_up_to(bias + i, left);
            store_up_to(y + i, value, left);
        }
    });
}

} // namespace

void rms_norm(Worker& worker, const Call& call) {
    const tm_norm& norm = call.as<tm_norm>();
    const Tensor &x = call.values[0], &y = call.values[1];
    worker.each(x.rows, rows_per_ticket(x.width * 8), [&](int64_t begin, int64_t end) {
        with_activation_type(x.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t r = begin; r < end; ++r)
                for (int64_t i = 0; i < x.width; i += norm.width)
                    rms_row(norm, x.row<T>(r) + i, y.row<T>(r) + i, norm.width);
        });
    });
}

void add_rms_norm(Worker& worker, const Call& call) {
    const tm_norm& norm = call.as<tm_norm>();
    const Tensor &x = call.values[0], &residual = call.values[1], &y = call.values[2], &total = call.values[3];
    worker.each(x.rows, rows_per_ticket(x.width * 16), [&](int64_t begin, int64_t end) {
        with_activation_type(x.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t r = begin; r < end; ++r) {
                add_row(x.row<T>(r), residual.row<T>(r), total.row<T>(r), x.width);
                rms_row(norm, total.row<T>(r), y.row<T>(r), norm.width);
            }
        });
    });
}

void layer_norm(Worker& worker, const Call& call) {
    const tm_norm& norm = call.as<tm_norm>();
    const Tensor &x = call.values[0], &y = call.values[1];
    worker.each(x.rows, rows_per_ticket(x.width * 8), [&](int64_t begin, int64_t end) {
        with_activation_type(x.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t r = begin; r < end; ++r)
                for (int64_t i = 0; i < x.width; i += norm.width)
                    layer_norm_row(norm, norm.apart ? i : 0, x.row<T>(r) + i, y.row<T>(r) + i, norm.width);
        });
    });
}

} // namespace tramontane::TM_ISA
