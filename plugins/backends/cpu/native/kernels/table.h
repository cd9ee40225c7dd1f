// SPDX-License-Identifier: Apache-2.0
// What a kernel is to the program: how it runs and how much scratch it wants. One table per instruction set.
#pragma once
#include <cstdint>

#include "abi.h"
#include "pool.h"

namespace tramontane {

// A value of the running step: rows of equal width.
struct Tensor {
    char* data;
    int64_t rows, width, stride; // elements, bytes
    int32_t dtype;

    template <class T> T* row(int64_t index) const { return reinterpret_cast<T*>(data + index * stride); }
};

// A node of the running step.
struct Call {
    const void* params;
    const tm_step* step;
    Tensor values[TM_MAX_VALUES];

    template <class P> const P& as() const { return *static_cast<const P*>(params); }
};

// Bytes of scratch: for all workers together, and for each.
struct Need {
    int64_t shared = 0, own = 0;
};

struct Kernel {
    void (*run)(Worker&, const Call&);
    Need (*need)(const Call&); // may be null: none
};

// What the library asks of a layout outside any node; see kernels/layouts/layout.h.
struct Packing {
    int64_t (*bytes)(const tm_matrix&);
    void (*pack)(Worker&, const tm_matrix&, const void* rows, int64_t stride, int32_t dtype);
    void (*rows)(Worker&, const tm_matrix&, const int64_t* ids, int64_t count, Tensor out);
    // Rows as they were given to `pack`; null where `rows` gives them.
    void (*unpack)(Worker&, const tm_matrix&, void* rows, int64_t stride) = nullptr;
};

// From floats to codes, and the bytes that all workers of it share.
struct Quantizing {
    void (*run)(Worker&, const tm_quantize&);
    int64_t (*need)(const tm_quantize&);
};

// From logits to tokens.
struct Drawing {
    void (*run)(Worker&, const tm_draw&);
    Need (*need)(const tm_draw&);
};

struct KernelTable {
    Kernel kernels[TM_KERNELS];
    Packing packing[TM_LAYOUTS];
    Quantizing quantizing;
    Drawing drawing;
    void (*read)(Worker&, const void* data, int64_t bytes, double* sums); // one sum for each mebibyte
};

} // namespace tramontane
