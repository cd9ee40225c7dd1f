// SPDX-License-Identifier: Apache-2.0
// Choosing rows: of the embedding matrix by token id, of the hidden states by the step's output rows.
#include "isa.h"
#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

void embed(Worker& worker, const Call& call) {
    const tm_embed& params = call.as<tm_embed>();
    const Tensor &ids = call.values[0], &y = call.values[1];
    kernel_table().packing[params.matrix.layout].rows(worker, params.matrix, ids.row<int64_t>(0), ids.rows, y);
    if (params.scale == 1.0f) return;
    worker.each(y.rows, rows_per_ticket(y.stride), [&](int64_t begin, int64_t end) {
        with_activation_type(y.dtype, [&](auto type) {
            using T = decltype(type);
            for (int64_t r = begin; r < end; ++r) {
                T* row = y.row<T>(r);
                for (int64_t i = 0; i < y.width; i += W)
                    store_up_to(row + i, load_up_to(row + i, y.width - i) * params.scale, y.width - i);
            }
        });
    });
}

void take_rows(Worker& worker, const Call& call) {
    const Tensor &x = call.values[0], &rows = call.values[1], &y = call.values[2];
    const int64_t bytes = x.width * size_of(x.dtype);
    worker.each(y.rows, rows_per_ticket(bytes), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            const int64_t from = *rows.row<int64_t>(r);
            if (from < 0 || from >= x.rows) {
                worker.fail(TM_BAD_INDEX);
            } else {
                memcpy(y.row<char>(r), x.row<char>(from), static_cast<size_t>(bytes));
            }
        }
    });
}

} // namespace tramontane::TM_ISA
