// SPDX-License-Identifier: Apache-2.0
#include "program.h"

#include <algorithm>

#include "isa.h"

namespace tramontane {

namespace {

// Work below this is done by the calling thread alone: waking and gathering the others costs a good part of it, and on a
// machine that others load many times as much.
constexpr double ALONE_NS = 200'000;
// What one thread does, about: bytes and multiplications per nanosecond. Only for the choice above.
constexpr double BYTES_PER_NS = 12, MACS_PER_NS = 40;

Tensor resolve_value(const tm_value& value, const tm_step& step) {
    switch (value.place) {
    case TM_IDS: return {(char*)step.ids, step.tokens, 1, sizeof(int64_t), TM_I64};
    case TM_OUT_ROWS: return {(char*)step.out_rows, step.outputs, 1, sizeof(int64_t), TM_I64};
    case TM_POSITIONS: return {(char*)step.positions, step.streams, step.tokens, step.position_stride, TM_I64};
    default: break;
    }
    char* base = static_cast<char*>(value.place == TM_ARENA ? step.arena : value.pointer);
    const int64_t rows = value.per_token * step.tokens + value.per_output * step.outputs + value.constant;
    return {base + value.offset, rows, value.width, value.stride, value.dtype};
}

bool same_places(const tm_step& a, const tm_step& b) {
    return a.tokens == b.tokens && a.outputs == b.outputs && a.ids == b.ids && a.positions == b.positions &&
           a.out_rows == b.out_rows && a.arena == b.arena && a.streams == b.streams &&
           a.position_stride == b.position_stride;
}

double matrix_ns(const tm_matrix& matrix, int64_t rows) {
    const double size = static_cast<double>(matrix.outputs) * static_cast<double>(matrix.inputs);
    return std::max(size * 2 / BYTES_PER_NS, size * static_cast<double>(rows) / MACS_PER_NS);
}

double attend_ns(const tm_attend& attend, const tm_step& step) {
    double keys = 0;
    for (int64_t r = 0; r < step.rows; ++r)
        keys += static_cast<double>(step.kv_len[r]) * (step.q_start[r + 1] - step.q_start[r]);
    return keys * static_cast<double>(attend.heads * (attend.head_dim + attend.value_dim)) / (MACS_PER_NS / 4);
}

double experts_ns(const tm_experts& experts, const Call& call) {
    const int64_t pairs = call.values[2].rows * call.values[2].width, hit = std::min(experts.experts, pairs);
    if (hit == 0) return 0;
    double ns = matrix_ns(experts.down[0], (pairs + hit - 1) / hit);
    for (int32_t p = 0; p < experts.gate_up_parts; ++p) ns += matrix_ns(experts.gate_up[p], (pairs + hit - 1) / hit);
    return ns * static_cast<double>(hit);
}

double latent_ns(const tm_attend_latent& latent, const Call& call) {
    const double heads = static_cast<double>(latent.attend.heads);
    const double rows = heads * (matrix_ns(latent.keys[0], call.values[0].rows) + matrix_ns(latent.values[0], call.values[0].rows));
    return rows + attend_ns(latent.attend, *call.step);
}

double cost_ns(const tm_node& node, const Call& call) {
    if (node.kernel == TM_ATTEND_LATENT) return latent_ns(call.as<tm_attend_latent>(), call);
    if (node.kernel == TM_GATED_DELTA) {
        const double key_dim = static_cast<double>(call.as<tm_gated_delta>().key_dim);
        return static_cast<double>(call.values[5].rows * call.values[5].width) * key_dim / (MACS_PER_NS / 8);
    }
    if (node.kernel == TM_ATTEND) return attend_ns(call.as<tm_attend>(), *call.step);
    if (node.kernel == TM_EXPERTS) return experts_ns(call.as<tm_experts>(), call);
    if (node.kernel == TM_ROUTER) return matrix_ns(call.as<tm_router>().matrix, call.values[0].rows);
    double ns = static_cast<double>(call.values[0].rows * call.values[0].width);
    if (node.kernel == TM_LINEAR) {
        const tm_linear& linear = call.as<tm_linear>();
        for (int32_t i = 0; i < linear.count; ++i) ns += matrix_ns(linear.parts[i], call.values[0].rows);
    }
    return ns;
}

} // namespace

void Program::resolve(const tm_step& step) {
    calls_.resize(nodes_.size());
    for (size_t i = 0; i < nodes_.size(); ++i) {
        calls_[i].params = nodes_[i].params;
        for (int32_t v = 0; v < nodes_[i].count; ++v) calls_[i].values[v] = resolve_value(nodes_[i].values[v], step);
    }
}

int32_t Program::run(Pool& pool, const tm_step& step) {
    // Decoding repeats the same sizes at the same addresses, step after step.
    if (calls_.size() != nodes_.size() || !same_places(step, step_)) resolve(step);
    step_ = step;
    const Kernel* kernels = kernel_table().kernels;
    Need need;
    double ns = 0;
    for (size_t i = 0; i < nodes_.size(); ++i) {
        calls_[i].step = &step;
        const Kernel& kernel = kernels[nodes_[i].kernel];
        if (kernel.need != nullptr) {
            const Need one = kernel.need(calls_[i]);
            need = {std::max(need.shared, one.shared), std::max(need.own, one.own)};
        }
        if (ns < ALONE_NS) ns += cost_ns(nodes_[i], calls_[i]);
    }
    return run_on(pool, ns < ALONE_NS, need.shared, need.own, [&](Worker& worker) {
        Profile* const profile = worker.first() ? profile_.get() : nullptr;
        if (profile != nullptr) profile->begin(step);
        for (size_t i = 0; i < nodes_.size(); ++i) {
            kernels[nodes_[i].kernel].run(worker, calls_[i]);
            if (profile != nullptr) profile->lap(i);
        }
    });
}

} // namespace tramontane
