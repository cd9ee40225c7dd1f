// SPDX-License-Identifier: Apache-2.0
#include "profile.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "isa.h"

namespace tramontane {

namespace {

const char* const KERNELS[TM_KERNELS] = {
    "embed", "linear", "take_rows", "rms_norm", "add_rms_norm", "layer_norm", "rope_angles", "rotate", "rotate_write",
    "cache_write", "attend", "activate", "gated_activate", "add", "multiply", "scale", "softcap", "router", "experts",
    "latent_write", "attend_latent", "causal_conv", "gated_delta",
};
const char* const CODINGS[] = {
    "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "affine4", "affine8", "affine4z", "affine8z",
    "affine4o", "affine8o", "table4", "e4m3", "e5m2",
};
const char* const FLOATS[] = {"f32", "bf16", "f16"};

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

const char* type_of(const tm_matrix& matrix) {
    if (matrix.layout == TM_BLOCKS) return CODINGS[matrix.sizes[0]];
    return matrix.layout == TM_CODES ? "codes" : FLOATS[matrix.dtype];
}

// Nodes that do the same work on weights of their own, layer after layer, are one line.
struct Line {
    std::string what;
    int64_t ns = 0, calls = 0, bytes = 0; // of weights, each call's summed
};

Line line_of(const tm_node& node) {
    Line line;
    line.what = KERNELS[node.kernel];
    if (node.kernel != TM_LINEAR) return line;
    const tm_linear& linear = *static_cast<const tm_linear*>(node.params);
    for (int32_t i = 0; i < linear.count; ++i) {
        const tm_matrix& part = linear.parts[i];
        line.what += (i == 0 ? " " : " + ") + std::to_string(part.outputs) + " " + type_of(part);
        line.bytes += kernel_table().packing[part.layout].bytes(part);
    }
    line.what += " x " + std::to_string(linear.parts[0].inputs);
    return line;
}

} // namespace

std::unique_ptr<Profile> Profile::wanted(const std::vector<tm_node>& nodes) {
    const char* asked = std::getenv("TRAMONTANE_CPU_PROFILE");
    // A kernel called by itself is a program of one node.
    if (asked == nullptr || std::strcmp(asked, "1") != 0 || nodes.size() < 2) return nullptr;
    return std::make_unique<Profile>(nodes);
}

Profile::~Profile() {
    print(decoding_, "decoding steps");
    print(others_, "other steps");
}

void Profile::begin(const tm_step& step) {
    running_ = step.tokens == step.rows ? &decoding_ : &others_;
    running_->ns.resize(nodes_.size());
    ++running_->steps;
    running_->tokens += step.tokens;
    last_ = now_ns();
}

void Profile::lap(size_t node) {
    const int64_t now = now_ns();
    running_->ns[node] += now - last_;
    last_ = now;
}

void Profile::print(const Kind& kind, const char* name) const {
    if (kind.steps == 0) return;
    std::vector<Line> lines;
    int64_t total = 0;
    for (size_t i = 0; i < nodes_.size(); ++i) {
        const Line found = line_of(nodes_[i]);
        auto same = std::find_if(lines.begin(), lines.end(), [&](const Line& line) { return line.what == found.what; });
        if (same == lines.end()) same = lines.insert(lines.end(), Line{found.what});
        same->ns += kind.ns[i], same->calls += 1, same->bytes += found.bytes;
        total += kind.ns[i];
    }
    std::sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.ns > b.ns; });
    const double steps = static_cast<double>(kind.steps);
    std::fprintf(stderr, "%lld %s of %.1f tokens, %.3f ms each\n", static_cast<long long>(kind.steps), name,
                 static_cast<double>(kind.tokens) / steps, static_cast<double>(total) / steps / 1e6);
    std::fprintf(stderr, "%7s %9s %6s %9s %6s\n", "share", "ms a step", "nodes", "us each", "GB/s");
    for (const Line& line : lines) {
        const double ns = static_cast<double>(line.ns) / steps;
        std::fprintf(stderr, "%6.1f%% %9.3f %6lld %9.2f %6.1f  %s\n", 100.0 * static_cast<double>(line.ns) / static_cast<double>(total),
                     ns / 1e6, static_cast<long long>(line.calls), ns / 1e3 / static_cast<double>(line.calls),
                     static_cast<double>(line.bytes) / std::max(ns, 1.0), line.what.c_str());
    }
}

} // namespace tramontane
