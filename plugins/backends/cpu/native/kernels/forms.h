// SPDX-License-Identifier: Apache-2.0
// The forms that activations take before a product.
#pragma once
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

// The tensor can be multiplied as it lies.
bool is_form(const Tensor& x, Form form);

// Bytes of scratch for a form of x.
int64_t form_bytes(const Tensor& x, Form form);

// x in the given form: itself, or made in `scratch` by all workers together.
Activations make_form(Worker& worker, const Tensor& x, Form form, char* scratch);

} // namespace tramontane::TM_ISA
