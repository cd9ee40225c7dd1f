// SPDX-License-Identifier: Apache-2.0
// Plain rows, as a checkpoint stores them: for matrices that are only looked up. They may stay in the mapped file.
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

namespace {

int64_t bytes(const tm_matrix& matrix) { return matrix.outputs * matrix.inputs * size_of(matrix.dtype); }

template <class From, class To> void copy_row(const From* from, To* to, int64_t width) {
    for (int64_t i = 0; i < width; i += W) store_up_to(to + i, load_up_to(from + i, width - i), width - i);
}

void copy(int32_t from_dtype, const char* from, int32_t to_dtype, char* to, int64_t width) {
    with_float_type(from_dtype, [&](auto a) {
        with_float_type(to_dtype, [&](auto b) {
            copy_row(reinterpret_cast<const decltype(a)*>(from), reinterpret_cast<decltype(b)*>(to), width);
        });
    });
}

void pack(Worker& worker, const tm_matrix& matrix, const void* rows, int64_t stride, int32_t dtype) {
    const int64_t size = matrix.inputs * size_of(matrix.dtype);
    worker.each(matrix.outputs, 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            copy(dtype, static_cast<const char*>(rows) + r * stride, matrix.dtype, (char*)matrix.data + r * size,
                 matrix.inputs);
    });
}

void rows(Worker& worker, const tm_matrix& matrix, const int64_t* ids, int64_t count, Tensor out) {
    const int64_t size = matrix.inputs * size_of(matrix.dtype);
    worker.each(count, 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            if (ids[i] < 0 || ids[i] >= matrix.outputs) {
                worker.fail(TM_BAD_INDEX);
            } else {
                const char* from = static_cast<const char*>(matrix.data) + ids[i] * size;
                copy(matrix.dtype, from, out.dtype, out.row<char>(i), matrix.inputs);
            }
        }
    });
}

} // namespace

const Packing ROW_MAJOR_PACKING = {bytes, pack, rows};

} // namespace tramontane::TM_ISA
