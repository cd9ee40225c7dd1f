// SPDX-License-Identifier: Apache-2.0
// Rows to blocks, or to groups of codes: gathers W of them, each into a lane, and lets the type's rule pack those.
#include "kernels/quantize/rules.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int LARGEST = 256; // elements of a block

bool in_groups(int32_t rule) { return rule >= TM_PACK_RANGE; }

BlockRule block_rule(const tm_quantize& asked) {
    const bool weighed = asked.importance != nullptr;
    if (asked.rule <= TM_PACK_Q8_0) return small_rule(asked.rule, weighed);
    return asked.rule <= TM_PACK_Q6_K ? k_rule(asked.rule) : iq4_rule(asked.rule);
}

const char* row_of(const tm_quantize& asked, int64_t row) {
    return static_cast<const char*>(asked.rows) + row * asked.stride;
}

// A block's elements into a lane.
template <class T> void spread(const T* from, int count, int lane, float* to) {
    for (int i = 0; i < count; i += W) {
        const VF some = Element<T>::load(from + i);
        for (int j = 0; j < W; ++j) to[(i + j) * W + lane] = some[j];
    }
}

// W blocks in lanes; those past the last are zero.
class Gathered {
  public:
    // `fitted`: no element will be a negative zero, since which zero an extreme is would depend on who looks for it.
    Gathered(const tm_quantize& asked, int block, bool fitted)
        : asked_(asked), block_(block), fitted_(fitted), per_row_(asked.inputs / block) {}

    // Blocks from `first` on; returns how many there were.
    int gather(int64_t first) {
        const int64_t all = asked_.outputs * per_row_;
        const int lanes = static_cast<int>(minimum<int64_t>(W, all - first));
        if (lanes < W) memset(values, 0, sizeof values), memset(importance, 0, sizeof importance);
        for (int lane = 0; lane < lanes; ++lane) {
            const int64_t index = first + lane;
            row[lane] = index / per_row_;
            place[lane] = index % per_row_;
            with_float_type(asked_.dtype, [&](auto type) {
                using T = decltype(type);
                spread(reinterpret_cast<const T*>(row_of(asked_, row[lane])) + place[lane] * block_, block_, lane, values);
            });
            if (asked_.importance != nullptr)
                spread(asked_.importance + row[lane] * asked_.importance_stride + place[lane] * block_, block_, lane,
                       importance);
        }
        for (int i = 0; i < block_ && fitted_; ++i) set(values, i, at(values, i) + zero());
        return lanes;
    }

    float values[LARGEST * W], importance[LARGEST * W];
    int64_t row[W], place[W];

  private:
    const tm_quantize& asked_;
    int block_;
    bool fitted_;
    int64_t per_row_;
};

// The mean square of a row: blocks of 32 are summed each by halves, their sums one after the other.
template <class T> float mean_square(const T* from, int64_t inputs) {
    float all = 0;
    for (int64_t start = 0; start < inputs; start += 32) {
        float squares[32];
        for (int i = 0; i < 32; i += W) {
            const VF some = Element<T>::load(from + start + i);
            put(squares + i, some * some);
        }
        for (int half = 16; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) squares[i] = squares[i] + squares[i + half];
        all = all + squares[0];
    }
    return all / static_cast<float>(inputs);
}

void row_means(Worker& worker, const tm_quantize& asked, float* means) {
    worker.each(asked.outputs, 8, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
            with_float_type(asked.dtype, [&](auto type) {
                means[row] = mean_square(reinterpret_cast<const decltype(type)*>(row_of(asked, row)), asked.inputs);
            });
    });
}

void pack_blocks(Worker& worker, const tm_quantize& asked) {
    const BlockRule rule = block_rule(asked);
    const bool fitted = rule.block == LARGEST || asked.rule == TM_PACK_IQ4_NL || asked.importance != nullptr;
    float* means = reinterpret_cast<float*>(worker.shared());
    if (rule.by_row) row_means(worker, asked, means);
    const int64_t units = ceil_div(asked.outputs * (asked.inputs / rule.block), W);
    worker.each(units, 4, [&](int64_t begin, int64_t end) {
        Gathered found(asked, rule.block, fitted);
        for (int64_t unit = begin; unit < end; ++unit) {
            float mean[W] = {};
            Byte* to[W] = {};
            const int lanes = found.gather(unit * W);
            for (int lane = 0; lane < lanes; ++lane) {
                if (rule.by_row) mean[lane] = means[found.row[lane]];
                to[lane] = static_cast<Byte*>(asked.to) + found.row[lane] * asked.to_stride + found.place[lane] * rule.bytes;
            }
            rule.pack({found.values, asked.importance == nullptr ? nullptr : found.importance, mean, lanes, to});
        }
    });
}

// Numbers beside the codes, each at its row and group.
void put_beside(const tm_quantize& asked, void* to, VF numbers, const Gathered& at_lane, int lanes) {
    const int64_t groups = asked.inputs / asked.group;
    for (int lane = 0; lane < lanes; ++lane) {
        const int64_t index = at_lane.row[lane] * groups + at_lane.place[lane];
        if (asked.scale_dtype == TM_I8) {
            static_cast<Byte*>(to)[index] = static_cast<Byte>(numbers[lane]);
        } else {
            with_float_type(asked.scale_dtype, [&](auto type) {
                using T = decltype(type);
                store_some(static_cast<T*>(to) + index, splat(numbers[lane]), 1);
            });
        }
    }
}

void pack_groups(Worker& worker, const tm_quantize& asked) {
    const GroupRule rule = group_rule(asked);
    const int64_t units = ceil_div(asked.outputs * (asked.inputs / rule.group), W), bytes = rule.group * asked.bits / 8;
    worker.each(units, 8, [&](int64_t begin, int64_t end) {
        Gathered found(asked, rule.group, asked.rule == TM_PACK_HQQ);
        for (int64_t unit = begin; unit < end; ++unit) {
            Byte* to[W] = {};
            const int lanes = found.gather(unit * W);
            for (int lane = 0; lane < lanes; ++lane)
                to[lane] = static_cast<Byte*>(asked.to) + found.row[lane] * asked.to_stride + found.place[lane] * bytes;
            const Beside beside = rule.pack(asked, {found.values, nullptr, nullptr, lanes, to});
            put_beside(asked, asked.scale, beside.scale, found, lanes);
            if (asked.zero != nullptr) put_beside(asked, asked.zero, beside.zero, found, lanes);
        }
    });
}

} // namespace

int64_t quantize_need(const tm_quantize& asked) {
    return asked.importance == nullptr ? 0 : asked.outputs * static_cast<int64_t>(sizeof(float));
}

void quantize(Worker& worker, const tm_quantize& asked) {
    if (in_groups(asked.rule)) {
        pack_groups(worker, asked);
    } else {
        pack_blocks(worker, asked);
    }
}

} // namespace tramontane::TM_ISA
