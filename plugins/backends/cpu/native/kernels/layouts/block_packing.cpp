// SPDX-License-Identifier: Apache-2.0
// Canonical rows to quantized panels and back, exactly, and rows as floats for look-ups.
//
// Codings with scales of their own beside the codes take them from matrix.extra: [0] scales, [1] zero points or offsets,
// both [outputs][groups] of matrix.dtype, read while packing and written while unpacking. Codings with a table of vectors
// find that there (Grid): [0] levels, [1] rows.
#include "kernels/layouts/block_floats.h"
#include "kernels/layouts/sources.h"

namespace tramontane::TM_ISA {

namespace {

// Functions of a coding and its source by address: every pair compiled out would be a hundred of them.
struct Access {
    BlockPlan plan;
    int64_t vectors;             // of scales beside the codes
    int64_t unit_bytes;          // of a source
    void (*put_lane)(char*, int64_t, const Byte*);
    void (*get_lane)(const char*, int64_t, Byte*);
    Grid grid;
    void (*get)(const Byte* row, int64_t b, int64_t count, Byte*, const Grid&);
    void (*put)(Byte* row, int64_t b, int64_t count, const Byte*, const Grid&);
    void (*scales_in)(const Byte* unit, char* chunk, int64_t lane); // null where scales lie beside the codes
    void (*scales_out)(Byte* unit, const char* chunk, int64_t lane);
};

Access access_of(const tm_matrix& matrix) {
    Access made = {};
    made.grid = {static_cast<const Byte*>(matrix.extra[0]), static_cast<const int16_t*>(matrix.extra[1])};
    with_coding(matrix, [&](auto coding) {
        using C = decltype(coding);
        made.plan = BlockPlan::of(matrix, coding);
        made.vectors = C::Scales::VECTORS;
        made.put_lane = C::Codes::put_lane;
        made.get_lane = C::Codes::get_lane;
    });
    with_source(matrix, [&](auto source) {
        using Source = decltype(source);
        made.get = Source::get;
        made.put = Source::put;
        if constexpr (Source::SPAN != 0) {
            made.unit_bytes = Source::BYTES;
            made.scales_in = Source::scales_in;
            made.scales_out = Source::scales_out;
        }
    });
    return made;
}

// One lane of a panel: an output's row.
class Lane {
  public:
    Lane(const tm_matrix& matrix, const Access& access, int64_t output)
        : matrix_(matrix), access_(access), output_(output), lane_(output % PANEL),
          panel_((char*)matrix.data + output / PANEL * access.plan.panel_bytes) {}

    void pack(const Byte* row) {
        for (int64_t b = 0; b < access_.plan.blocks; ++b) {
            Byte codes[BLOCK] = {};
            access_.get(row, b, count(b), codes, access_.grid);
            access_.put_lane(panel_ + access_.plan.codes_at(b), lane_, codes);
        }
        for (int64_t c = 0; c < access_.plan.chunks; ++c) {
            if (access_.scales_in != nullptr) {
                access_.scales_in(row + c * access_.unit_bytes, chunk(c), lane_);
            } else {
                each_beside(c, [](char* ours, char* theirs, int64_t size) { copy(ours, theirs, size); });
            }
        }
    }

    void unpack(Byte* row) {
        for (int64_t b = 0; b < access_.plan.blocks; ++b) {
            Byte codes[BLOCK];
            access_.get_lane(panel_ + access_.plan.codes_at(b), lane_, codes);
            access_.put(row, b, count(b), codes, access_.grid);
        }
        for (int64_t c = 0; c < access_.plan.chunks; ++c) {
            if (access_.scales_out != nullptr) {
                access_.scales_out(row + c * access_.unit_bytes, chunk(c), lane_);
            } else {
                each_beside(c, [](char* ours, char* theirs, int64_t size) { copy(theirs, ours, size); });
            }
        }
    }

  private:
    int64_t count(int64_t b) const { return minimum(BLOCK, matrix_.inputs - b * BLOCK); }
    char* chunk(int64_t c) const { return panel_ + access_.plan.scales_at(c); }

    template <class F> void each_beside(int64_t c, F&& f) {
        const int64_t size = size_of(matrix_.dtype);
        for (int64_t i = 0; i < access_.vectors; ++i)
            f(chunk(c) + (i * PANEL + lane_) * size,
              (char*)matrix_.extra[i] + (output_ * access_.plan.chunks + c) * size, size);
    }

    const tm_matrix& matrix_;
    const Access& access_;
    int64_t output_, lane_;
    char* panel_;
};

int64_t bytes(const tm_matrix& matrix) {
    int64_t found = 0;
    with_coding(matrix, [&](auto coding) { found = BlockPlan::of(matrix, coding).panel_bytes; });
    return found * panels_of(matrix);
}

void pack(Worker& worker, const tm_matrix& matrix, const void* rows, int64_t stride, int32_t) {
    const Access access = access_of(matrix);
    const int64_t size = access.plan.panel_bytes;
    worker.each(panels_of(matrix), 1, [&](int64_t begin, int64_t end) {
        memset((char*)matrix.data + begin * size, 0, static_cast<size_t>((end - begin) * size));
        for (int64_t output = begin * PANEL; output < minimum(matrix.outputs, end * PANEL); ++output)
            Lane(matrix, access, output).pack(static_cast<const Byte*>(rows) + output * stride);
    });
}

void unpack(Worker& worker, const tm_matrix& matrix, void* rows, int64_t stride) {
    const Access access = access_of(matrix);
    worker.each(matrix.outputs, PANEL, [&](int64_t begin, int64_t end) {
        for (int64_t output = begin; output < minimum(matrix.outputs, end); ++output)
            Lane(matrix, access, output).unpack(static_cast<Byte*>(rows) + output * stride);
    });
}

template <class C> void float_row(const tm_matrix& matrix, int64_t output, float* to) {
    const BlockPlan plan = BlockPlan::of(matrix, C{});
    const int64_t lane = output % PANEL;
    const char* panel = static_cast<const char*>(matrix.data) + output / PANEL * plan.panel_bytes;
    each_pair<C>(matrix, panel, lane / W, [&](int64_t input, VF even, VF odd) {
        to[input] = even[lane % W], to[input + 1] = odd[lane % W];
    });
}

void (*float_row_of(const tm_matrix& matrix))(const tm_matrix&, int64_t, float*) {
    void (*found)(const tm_matrix&, int64_t, float*) = nullptr;
    with_coding(matrix, [&](auto coding) { found = float_row<decltype(coding)>; });
    return found;
}

void rows(Worker& worker, const tm_matrix& matrix, const int64_t* ids, int64_t count, Tensor out) {
    const auto unpack_row = float_row_of(matrix);
    worker.each(count, 2, [&](int64_t begin, int64_t end) {
        Scratch scratch;
        float* values = reinterpret_cast<float*>(scratch.reserve(depth_of(matrix) * static_cast<int64_t>(sizeof(float))));
        for (int64_t i = begin; i < minimum(count, end); ++i) {
            if (values == nullptr) return worker.fail(TM_NO_MEMORY);
            if (ids[i] < 0 || ids[i] >= matrix.outputs) {
                worker.fail(TM_BAD_INDEX);
                continue;
            }
            unpack_row(matrix, ids[i], values);
            with_float_type(out.dtype, [&](auto to) {
                using To = decltype(to);
                for (int64_t j = 0; j < matrix.inputs; j += W)
                    store_up_to(out.row<To>(i) + j, get<VF>(values + j), matrix.inputs - j);
            });
        }
    });
}

} // namespace

const Packing BLOCKS_PACKING = {bytes, pack, rows, unpack};

} // namespace tramontane::TM_ISA
