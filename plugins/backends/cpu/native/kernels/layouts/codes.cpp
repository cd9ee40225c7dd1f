// SPDX-License-Identifier: Apache-2.0
// Quantized weights as their scheme stores them, brought to floating-point panels where they are used: slower than blocks,
// but good for any width of codes, any groups, any order of inputs. Values are the scheme's own, bit for bit.
#include "kernels/layouts/panels.h"

namespace tramontane::TM_ISA {

namespace {

const tm_codes& codes_of(const tm_matrix& matrix) { return *static_cast<const tm_codes*>(matrix.extra[0]); }

// The codes of a row, widened, `bits` of them at a time: what does not fill a byte goes on in the next.
void unpack_bits(const tm_codes& codes, const uint8_t* row, int64_t inputs, float* to) {
    const uint32_t mask = (1u << codes.bits) - 1;
    uint32_t held = 0;
    int have = 0;
    for (int64_t i = 0; i < inputs; ++i) {
        if (have < codes.bits) {
            held |= static_cast<uint32_t>(*row++) << have;
            have += 8;
        }
        const uint32_t code = held & mask;
        held >>= codes.bits, have -= codes.bits;
        to[i] = codes.table == nullptr ? static_cast<float>(code) : codes.table[code];
    }
}

void numbers(const tm_codes& codes, const uint8_t* row, int64_t inputs, float* to) {
    if (codes.code == TM_CODE_BITS) return unpack_bits(codes, row, inputs, to);
    for (int64_t i = 0; i < inputs; i += W) {
        const int64_t left = minimum<int64_t>(W, inputs - i);
        uint8_t bytes[W] = {};
        memcpy(bytes, row + i, static_cast<size_t>(left));
        const VU code = widen_bytes(bytes);
        const VF value = codes.code == TM_CODE_E4M3 ? widen_f8(code) : widen_f16(__builtin_convertvector(code << 8, VH));
        store_up_to(to + i, value, left);
    }
}

// Products are not contracted with sums: what comes out is what the scheme defines.
inline float weight(const tm_codes& codes, float number, float scale, float zero) {
    return codes.shifted ? number * scale + zero : (number - zero) * scale;
}

void decode_row(const tm_matrix& matrix, int64_t output, float* to) {
    const tm_codes& codes = codes_of(matrix);
    const uint8_t* row = codes.rows + output * codes.row_bytes;
    numbers(codes, row, matrix.inputs, to);
    const int64_t at = output / codes.rows_each % codes.scale_rows * codes.groups;
    const float *scales = codes.scales + at, *zeros = codes.zeros == nullptr ? nullptr : codes.zeros + at;
    if (codes.group_of != nullptr) {
        for (int64_t i = 0; i < matrix.inputs; ++i) {
            const int32_t g = codes.group_of[i];
            to[i] = weight(codes, to[i], scales[g], zeros == nullptr ? codes.middle : zeros[g]);
        }
        return;
    }
    for (int64_t first = 0, g = 0; first < matrix.inputs; first += codes.group, ++g) {
        const float scale = scales[g], zero = zeros == nullptr ? codes.middle : zeros[g];
        const int64_t last = minimum(matrix.inputs, first + codes.group);
        for (int64_t i = first; i < last; ++i) to[i] = weight(codes, to[i], scale, zero);
    }
}

// --- packing: there is nothing to pack -------------------------------------------------------------------------------

int64_t bytes(const tm_matrix&) { return 0; }

void pack(Worker&, const tm_matrix&, const void*, int64_t, int32_t) {}

void rows(Worker& worker, const tm_matrix& matrix, const int64_t* ids, int64_t count, Tensor out) {
    worker.each(count, 2, [&](int64_t begin, int64_t end) {
        Scratch scratch;
        float* values = reinterpret_cast<float*>(scratch.reserve((matrix.inputs + W) * static_cast<int64_t>(sizeof(float))));
        for (int64_t i = begin; i < minimum(count, end); ++i) {
            if (values == nullptr) return worker.fail(TM_NO_MEMORY);
            if (ids[i] < 0 || ids[i] >= matrix.outputs) {
                worker.fail(TM_BAD_INDEX);
                continue;
            }
            decode_row(matrix, ids[i], values);
            with_float_type(out.dtype, [&](auto to) {
                for (int64_t j = 0; j < matrix.inputs; j += W)
                    store_up_to(out.row<decltype(to)>(i) + j, get<VF>(values + j), matrix.inputs - j);
            });
        }
    });
}

// --- products --------------------------------------------------------------------------------------------------------

Form form(const tm_matrix& matrix, int32_t x_dtype, int64_t) {
#if defined(__AVX512BF16__)
    if (x_dtype == TM_BF16 && !matrix.sizes[2]) return FORM_BF16;
#else
    (void)x_dtype;
#endif
    (void)matrix;
    return FORM_F32;
}

template <class E> Panels unpacked(const tm_matrix& matrix, int64_t first, int64_t count, int64_t M, Form form, char* scratch) {
    const int64_t depth = depth_of(matrix);
    float* row = reinterpret_cast<float*>(scratch + count * float_panel_bytes(matrix));
    for (int64_t output = 0; output < count * PANEL; ++output) {
        const bool there = first * PANEL + output < matrix.outputs;
        if (there) decode_row(matrix, first * PANEL + output, row);
        pack_output(row, there ? matrix.inputs : 0, depth, output, reinterpret_cast<E*>(scratch));
    }
    return {scratch, depth * PANEL * static_cast<int64_t>(sizeof(E)), count, depth, pick_multiply<E>(M, form)};
}

Panels open(const tm_matrix& matrix, int64_t first, int64_t count, int64_t M, Form form, char* scratch) {
    return form == FORM_BF16 ? unpacked<bf16>(matrix, first, count, M, form, scratch)
                             : unpacked<float>(matrix, first, count, M, form, scratch);
}

int64_t scratch(const tm_matrix& matrix, int64_t count, int64_t) {
    return count * float_panel_bytes(matrix) + depth_of(matrix) * static_cast<int64_t>(sizeof(float));
}

int64_t together(const tm_matrix&, int64_t M) { return M > STREAM_ROWS ? 4 : 1; }

} // namespace

const Layout CODES_LAYOUT = {form, open, scratch, together};
const Packing CODES_PACKING = {bytes, pack, rows};

} // namespace tramontane::TM_ISA
