// SPDX-License-Identifier: Apache-2.0
#include "kernels/functions.h"
#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

namespace {

// Long rows are cut, so that the few rows of a decoding step (logits, say) still keep all workers busy.
constexpr int64_t SPAN = 8192;

// Runs f(row, first, last) over the rows of y in spans.
template <class F> void spans(Worker& worker, const Tensor& y, F&& f) {
    const int64_t per_row = ceil_div(y.width, SPAN);
    worker.each(y.rows * per_row, rows_per_ticket(minimum(y.width, SPAN) * 8), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i % per_row * SPAN;
            f(i / per_row, first, minimum(y.width, first + SPAN));
        }
    });
}

// y = f(x), element by element.
template <class F> void map(Worker& worker, const Tensor& x, const Tensor& y, F&& f) {
    spans(worker, y, [&](int64_t r, int64_t first, int64_t last) {
        with_activation_type(y.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t i = first; i < last; i += W)
                store_up_to(y.row<T>(r) + i, f(load_up_to(x.row<T>(r) + i, last - i)), last - i);
        });
    });
}

template <class F> void with_activation(int32_t kind, F&& f) {
    switch (kind) {
    case TM_SILU: return f([](VF x) { return activation<TM_SILU>(x); });
    case TM_GELU: return f([](VF x) { return activation<TM_GELU>(x); });
    case TM_GELU_TANH: return f([](VF x) { return activation<TM_GELU_TANH>(x); });
    case TM_RELU: return f([](VF x) { return activation<TM_RELU>(x); });
    case TM_RELU2: return f([](VF x) { return activation<TM_RELU2>(x); });
    default: return f([](VF x) { return activation<TM_SIGMOID>(x); });
    }
}

} // namespace

void activate_all(Worker& worker, const Call& call) {
    with_activation(call.as<tm_pointwise>().activation, [&](auto act) { map(worker, call.values[0], call.values[1], act); });
}

void gated_activate(Worker& worker, const Call& call) {
    const Tensor &x = call.values[0], &y = call.values[1];
    with_activation(call.as<tm_pointwise>().activation, [&](auto act) {
        spans(worker, y, [&](int64_t r, int64_t first, int64_t last) {
            with_activation_type(y.dtype, [&](auto type) {
                using T = decltype(type);
                const T *gate = x.row<T>(r), *up = gate + y.width;
                for (int64_t i = first; i < last; i += W) {
                    const VF value = Element<T>::round(act(load_up_to(gate + i, last - i)));
                    store_up_to(y.row<T>(r) + i, value * load_up_to(up + i, last - i), last - i);
                }
            });
        });
    });
}

void add(Worker& worker, const Call& call) {
    const Tensor &a = call.values[0], &b = call.values[1], &y = call.values[2];
    spans(worker, y, [&](int64_t r, int64_t first, int64_t last) {
        with_activation_type(y.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t i = first; i < last; i += W) {
                const VF value = load_up_to(a.row<T>(r) + i, last - i) + load_up_to(b.row<T>(r) + i, last - i);
                store_up_to(y.row<T>(r) + i, value, last - i);
            }
        });
    });
}

void multiply(Worker& worker, const Call& call) {
    const Tensor &a = call.values[0], &b = call.values[1], &y = call.values[2];
    const bool column = b.width == 1 && y.width != 1;
    spans(worker, y, [&](int64_t r, int64_t first, int64_t last) {
        with_activation_type(y.dtype, [&](auto type) {
            using T = decltype(type);
            const T* other = b.row<T>(b.rows == 1 ? 0 : r);
            for (int64_t i = first; i < last; i += W) {
                const VF factor = column ? splat(to_float(*other)) : load_up_to(other + i, last - i);
                store_up_to(y.row<T>(r) + i, load_up_to(a.row<T>(r) + i, last - i) * factor, last - i);
            }
        });
    });
}

void scale(Worker& worker, const Call& call) {
    const VF factor = splat(call.as<tm_pointwise>().value);
    map(worker, call.values[0], call.values[1], [=](VF x) { return x * factor; });
}

void softcap(Worker& worker, const Call& call) {
    const float cap = call.as<tm_pointwise>().value;
    map(worker, call.values[0], call.values[1], [=](VF x) { return tanh_v(x / cap) * cap; });
}

} // namespace tramontane::TM_ISA
