// SPDX-License-Identifier: Apache-2.0
#include "kernels/forms.h"

#include "kernels/form_q8.h"

namespace tramontane::TM_ISA {

namespace {

int64_t row_bytes(const Tensor& x, Form form) {
    const int64_t depth = round_up(x.width, DEPTH);
    if (form == FORM_Q8) return q8_row_bytes(x.width);
    return spaced(depth * (form == FORM_F32 ? 4 : 2));
}

template <class From, class To> void convert_row(const From* from, To* to, int64_t width) {
    const int64_t depth = round_up(width, DEPTH);
    int64_t i = 0;
    for (; i + W <= width; i += W) Element<To>::store(to + i, Element<From>::load(from + i));
    for (; i < depth; i += W) Element<To>::store(to + i, i < width ? load_some(from + i, width - i) : zero());
}

} // namespace

bool is_form(const Tensor& x, Form form) {
    return form != FORM_Q8 && x.width % DEPTH == 0 && x.dtype == (form == FORM_F32 ? TM_F32 : TM_BF16);
}

int64_t form_bytes(const Tensor& x, Form form) { return is_form(x, form) ? 0 : x.rows * row_bytes(x, form); }

Activations make_form(Worker& worker, const Tensor& x, Form form, char* scratch) {
    if (is_form(x, form)) return {x.data, x.stride, x.rows};
    const int64_t stride = row_bytes(x, form);
    worker.each(x.rows, maximum<int64_t>(1, 16384 / stride), [&](int64_t begin, int64_t end) {
        with_activation_type(x.dtype, [&](auto type) {
            using From = decltype(type);
            for (int64_t r = begin; r < end; ++r) {
                if (form == FORM_F32) {
                    convert_row(x.row<From>(r), reinterpret_cast<float*>(scratch + r * stride), x.width);
                } else if (form == FORM_Q8) {
                    quantize_row(x.row<From>(r), scratch + r * stride, x.width);
                } else {
                    convert_row(x.row<From>(r), reinterpret_cast<bf16*>(scratch + r * stride), x.width);
                }
            }
        });
    });
    return {scratch, stride, x.rows};
}

} // namespace tramontane::TM_ISA
