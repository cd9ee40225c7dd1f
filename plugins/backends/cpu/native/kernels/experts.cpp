// SPDX-License-Identifier: Apache-2.0
// Gated feed-forward by each token's experts. Pairs of token and expert are sorted by expert, so that each expert's
// weights pass once and serve all of its tokens; the weights' layouts multiply as they do for any product.
//
// The results of both products are float32 rows whose parts are padded to whole panels: layouts write them in place.
#include "isa.h"
#include "kernels/forms.h"
#include "kernels/functions.h"
#include "kernels/kernels.h"
#include "kernels/layouts/layout.h"
#include "kernels/layouts/tiles_amx.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t MOST_PAIRS = 4096; // at a time: bounds the memory between the products
constexpr int64_t MANY = 64;         // rows of a product; layouts need not tell more apart
constexpr int64_t BLOCK_ROWS = 96;   // of activations that meet the same panels in turn

int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }
int64_t asked_rows(int64_t rows) { return minimum(rows, MANY); }

// The matrices [outputs, inputs] of all experts, each of one or more parts that lie side by side in a row of results.
// All experts are stored alike, so the first one's answers hold for all.
class Stack {
  public:
    Stack(const tm_matrix* matrices, int64_t parts) : matrices_(matrices), parts_(parts) {}

    const tm_matrix& at(int64_t expert, int64_t part) const { return matrices_[expert * parts_ + part]; }
    int64_t parts() const { return parts_; }
    int64_t inputs() const { return matrices_[0].inputs; }
    int64_t offset(int64_t part) const {
        int64_t found = 0;
        for (int64_t p = 0; p < part; ++p) found += panels_of(matrices_[p]) * PANEL;
        return found;
    }
    int64_t width() const { return offset(parts_); }

    int64_t together(int64_t part, int64_t M) const { return layout_of(matrices_[part]).together(matrices_[part], M); }
    int64_t pieces(int64_t part, int64_t M) const { return ceil_div(panels_of(matrices_[part]), together(part, M)); }
    int64_t units(int64_t M) const {
        int64_t found = 0;
        for (int64_t p = 0; p < parts_; ++p) found += pieces(p, M);
        return found;
    }

    bool wants(Form form, int32_t dtype, int64_t M) const {
        for (int64_t p = 0; p < parts_; ++p)
            if (layout_of(matrices_[p]).form(matrices_[p], dtype, M) == form) return true;
        return false;
    }
    bool may_want(Form form, int32_t dtype, int64_t rows) const {
        for (int64_t M = 1; M <= asked_rows(rows); ++M)
            if (wants(form, dtype, M)) return true;
        return false;
    }
    int64_t scratch(int64_t rows) const {
        int64_t most = 0;
        for (int64_t M = 1; M <= asked_rows(rows); ++M)
            for (int64_t p = 0; p < parts_; ++p)
                most = maximum(most, layout_of(matrices_[p]).scratch(matrices_[p], together(p, M), M));
        return most;
    }

  private:
    const tm_matrix* matrices_;
    int64_t parts_;
};

Stack gate_up_of(const tm_experts& experts) { return {experts.gate_up, experts.gate_up_parts}; }
Stack down_of(const tm_experts& experts) { return {experts.down, 1}; }

// Shared scratch, divided.
struct Room {
    int32_t* first;    // [experts + 1]: where the pairs of an expert begin
    int32_t* order;    // [pairs]: the pair at each place
    int32_t* place;    // [pairs]: where each pair went; -1 where its expert does not exist
    int32_t* units[2]; // [experts + 1]: where an expert's units begin, of each product
    char* token_forms; // forms of the tokens
    char* forms;       // forms of the pairs, sorted: first of the tokens, then of what the gate makes of them
    char* gated;       // [pairs, features] of the activations' type
    float* results;    // [pairs, width] of either product
    int64_t bytes;
};

int64_t forms_bytes(const Tensor& x, const Stack& stack, int64_t rows, bool even_as_it_is) {
    int64_t found = 0;
    for (int32_t f = 0; f < FORMS; ++f) {
        const Form form = static_cast<Form>(f);
        if (!stack.may_want(form, x.dtype, rows)) continue;
        found += aligned(even_as_it_is && is_form(x, form) ? x.rows * x.width * size_of(x.dtype) : form_bytes(x, form));
    }
    return found;
}

Room divide(const tm_experts& experts, const Call& call, char* memory) {
    const Tensor &x = call.values[0], &ids = call.values[2];
    const Stack gate_up = gate_up_of(experts), down = down_of(experts);
    const int64_t tokens = minimum(x.rows, maximum<int64_t>(1, MOST_PAIRS / ids.width)), pairs = tokens * ids.width;
    const Tensor token_rows{nullptr, tokens, x.width, 0, x.dtype}, pair_rows{nullptr, pairs, x.width, 0, x.dtype};
    const Tensor gated{nullptr, pairs, down.inputs(), 0, x.dtype};
    Room room;
    int64_t used = 0;
    auto take = [&](int64_t bytes) {
        char* piece = memory + used;
        used += aligned(bytes);
        return piece;
    };
    const int64_t marks = (experts.experts + 1) * 4;
    room.first = reinterpret_cast<int32_t*>(take(marks));
    room.order = reinterpret_cast<int32_t*>(take(pairs * 4));
    room.place = reinterpret_cast<int32_t*>(take(pairs * 4));
    for (auto& units : room.units) units = reinterpret_cast<int32_t*>(take(marks));
    room.token_forms = take(forms_bytes(token_rows, gate_up, pairs, false));
    room.forms = take(maximum(forms_bytes(pair_rows, gate_up, pairs, true), forms_bytes(gated, down, pairs, false)));
    room.gated = take(gated.rows * gated.width * size_of(x.dtype));
    room.results = reinterpret_cast<float*>(take(pairs * maximum(gate_up.width(), down.width()) * 4 + 64));
    room.bytes = used;
    return room;
}

struct Forms {
    Activations made[FORMS] = {};
};

// Some tokens of the step through their experts.
class Mixture {
  public:
    Mixture(Worker& worker, const Call& call, const Room& room)
        : worker_(worker), call_(call), experts_(call.as<tm_experts>()), room_(room), gate_up_(gate_up_of(experts_)),
          down_(down_of(experts_)), top_k_(call.values[2].width) {}

    void run(int64_t token, int64_t tokens) {
        token_ = token, tokens_ = tokens;
        group();
        const int64_t features = down_.inputs(), pairs = room_.first[experts_.experts];
        multiply(gate_up_, 0, token_forms());
        gate();
        const int32_t dtype = call_.values[0].dtype;
        multiply(down_, 1, forms_of({room_.gated, pairs, features, features * size_of(dtype), dtype}, down_, room_.forms));
        combine();
    }

  private:
    int64_t rows_of(int64_t expert) const { return room_.first[expert + 1] - room_.first[expert]; }

    // Sorts the pairs by expert, keeping the order of tokens, and counts the units of both products.
    void group() {
        worker_.each(1, 1, [&](int64_t, int64_t) {
            const Tensor& ids = call_.values[2];
            int32_t *first = room_.first, *next = room_.units[0];
            memset(first, 0, static_cast<size_t>(experts_.experts + 1) * 4);
            const auto each_pair = [&](auto&& f) {
                for (int64_t t = 0; t < tokens_; ++t)
                    for (int64_t k = 0; k < top_k_; ++k) f(t * top_k_ + k, ids.row<int32_t>(token_ + t)[k]);
            };
            each_pair([&](int64_t pair, int32_t expert) {
                room_.place[pair] = -1;
                if (expert < 0 || expert >= experts_.experts) return worker_.fail(TM_BAD_INDEX);
                ++first[expert + 1];
            });
            for (int64_t e = 0; e < experts_.experts; ++e) first[e + 1] += first[e], next[e] = first[e];
            each_pair([&](int64_t pair, int32_t expert) {
                if (expert < 0 || expert >= experts_.experts) return;
                const int32_t place = next[expert]++;
                room_.place[pair] = place, room_.order[place] = static_cast<int32_t>(pair);
            });
            count_units(gate_up_, room_.units[0]);
            count_units(down_, room_.units[1]);
        });
    }

    void count_units(const Stack& stack, int32_t* units) const {
        units[0] = 0;
        for (int64_t e = 0; e < experts_.experts; ++e) {
            const int64_t rows = rows_of(e);
            units[e + 1] = units[e] + static_cast<int32_t>(rows == 0 ? 0 : stack.units(asked_rows(rows)));
        }
    }

    bool wanted(const Stack& stack, Form form) const {
        for (int64_t e = 0; e < experts_.experts; ++e)
            if (rows_of(e) > 0 && stack.wants(form, call_.values[0].dtype, asked_rows(rows_of(e)))) return true;
        return false;
    }

    Forms forms_of(const Tensor& x, const Stack& stack, char* scratch) const {
        Forms forms;
        for (int32_t f = 0; f < FORMS; ++f) {
            const Form form = static_cast<Form>(f);
            if (!wanted(stack, form)) continue;
            forms.made[f] = make_form(worker_, x, form, scratch);
            scratch += aligned(form_bytes(x, form));
        }
        return forms;
    }

    // A row for each pair, sorted. Those of a lone token are all the same one.
    Forms token_forms() const {
        const Tensor& all = call_.values[0];
        const Tensor x{all.row<char>(token_), tokens_, all.width, all.stride, all.dtype};
        Forms forms = forms_of(x, gate_up_, room_.token_forms);
        char* scratch = room_.forms;
        for (int32_t f = 0; f < FORMS; ++f) {
            Activations& made = forms.made[f];
            if (made.data == nullptr) continue;
            if (tokens_ == 1) {
                made.stride = 0;
                continue;
            }
            const Form form = static_cast<Form>(f);
            const int64_t bytes = is_form(x, form) ? x.width * size_of(x.dtype) : made.stride;
            worker_.each(room_.first[experts_.experts], maximum<int64_t>(1, 16384 / bytes), [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i)
                    memcpy(scratch + i * bytes, made.data + room_.order[i] / top_k_ * made.stride, static_cast<size_t>(bytes));
            });
            made = {scratch, bytes, room_.first[experts_.experts]};
            scratch += aligned(made.rows * bytes);
        }
        return forms;
    }

    void multiply(const Stack& stack, int product, const Forms& forms) const {
        const int32_t* units = room_.units[product];
        int64_t expert = 0; // a worker's tickets only ever rise
        worker_.each(units[experts_.experts], 1, [&](int64_t unit, int64_t) {
            while (unit >= units[expert + 1]) ++expert;
            piece(stack, expert, unit - units[expert], forms);
        });
#if defined(__AVX512BF16__)
        if (amx_enabled()) release_amx();
#endif
    }

    // Some panels of one expert by all of its rows.
    void piece(const Stack& stack, int64_t expert, int64_t index, const Forms& forms) const {
        const int64_t rows = rows_of(expert), M = asked_rows(rows);
        int64_t part = 0;
        for (; index >= stack.pieces(part, M); ++part) index -= stack.pieces(part, M);
        const tm_matrix& matrix = stack.at(expert, part);
        const int64_t first = index * stack.together(part, M);
        const int64_t count = minimum(stack.together(part, M), panels_of(matrix) - first);
        const Layout& layout = layout_of(matrix);
        const Form form = layout.form(matrix, call_.values[0].dtype, M);
        const Panels panels = layout.open(matrix, first, count, M, form, worker_.own());
        float* out = room_.results + stack.offset(part) + first * PANEL;
        for (int64_t r = room_.first[expert]; r < room_.first[expert + 1]; r += BLOCK_ROWS)
            panels.multiply(panels, forms.made[form], r, minimum<int64_t>(BLOCK_ROWS, room_.first[expert + 1] - r),
                            out + r * stack.width(), stack.width());
    }

    int64_t expert_of(int64_t place) const {
        const int64_t pair = room_.order[place];
        return call_.values[2].row<int32_t>(token_ + pair / top_k_)[pair % top_k_];
    }

    VF shifted(const float* results, const void* bias, int64_t expert, int64_t outputs, int64_t output, int64_t left) const {
        VF value = get<VF>(results);
        if (bias != nullptr)
            with_activation_type(experts_.bias_dtype, [&](auto type) {
                value += load_up_to(static_cast<const decltype(type)*>(bias) + expert * outputs + output, left);
            });
        return value;
    }

    void gate() const {
        const int64_t features = down_.inputs();
        const int64_t up = gate_up_.parts() == 1 ? features : gate_up_.offset(1);
        worker_.each(room_.first[experts_.experts], rows_per_ticket(features * 12), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) gate_row(i, features, room_.results + i * gate_up_.width(), up);
        });
    }

    void gate_row(int64_t place, int64_t features, const float* both, int64_t up) const {
        const int64_t expert = expert_of(place);
        with_activation_type(call_.values[0].dtype, [&](auto type) {
            auto* to = reinterpret_cast<decltype(type)*>(room_.gated) + place * features;
            for (int64_t i = 0; i < features; i += W) {
                // The halves of a lone part may end in the middle of a vector: what is read past them is not stored.
                const int64_t left = features - i;
                const VF a = shifted(both + i, experts_.gate_up_bias, expert, 2 * features, i, left);
                const VF b = shifted(both + up + i, experts_.gate_up_bias, expert, 2 * features, features + i, left);
                store_up_to(to + i, gated(a, b), left);
            }
        });
    }

    VF gated(VF a, VF b) const {
        if (experts_.gate != TM_CLAMPED_SWIGLU) return activate(experts_.gate, a) * b;
        const VF limit = splat(experts_.limit), gate = min_v(a, limit);
        const VF up = max_v(min_v(b, limit), zero() - limit);
        return gate * sigmoid_v(gate * experts_.alpha) * (up + splat(1.0f));
    }

    // Sums the experts of each token in the router's order, in float32, and rounds once.
    void combine() const {
        const Tensor &weights = call_.values[1], &y = call_.values[3];
        worker_.each(tokens_, rows_per_ticket(y.width * 4 * (top_k_ + 1)), [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t)
                with_activation_type(y.dtype, [&](auto type) {
                    combine_row(t, weights.row<float>(token_ + t), y.row<decltype(type)>(token_ + t), y.width);
                });
        });
    }

    template <class T> void combine_row(int64_t token, const float* weights, T* y, int64_t outputs) const {
        const int32_t* ids = call_.values[2].row<int32_t>(token_ + token);
        for (int64_t i = 0; i < outputs; i += W) {
            VF total = zero();
            for (int64_t k = 0; k < top_k_; ++k) {
                const int64_t place = room_.place[token * top_k_ + k];
                if (place < 0) continue;
                const float* row = room_.results + place * down_.width() + i;
                total = fma(shifted(row, experts_.down_bias, ids[k], outputs, i, outputs - i), splat(weights[k]), total);
            }
            store_up_to(y + i, total, outputs - i);
        }
    }

    Worker& worker_;
    const Call& call_;
    const tm_experts& experts_;
    const Room& room_;
    Stack gate_up_, down_;
    int64_t top_k_, token_ = 0, tokens_ = 0;
};

} // namespace

Need experts_need(const Call& call) {
    const tm_experts& experts = call.as<tm_experts>();
    const int64_t pairs = call.values[2].rows * call.values[2].width;
    const int64_t unpacked = maximum(gate_up_of(experts).scratch(pairs), down_of(experts).scratch(pairs));
    return {divide(experts, call, nullptr).bytes, aligned(unpacked)};
}

void experts(Worker& worker, const Call& call) {
    const tm_experts& experts = call.as<tm_experts>();
    const int64_t tokens = call.values[0].rows, top_k = call.values[2].width;
    if (tokens == 0) return;
    const Room room = divide(experts, call, worker.shared());
    Mixture mixture(worker, call, room);
    const int64_t step = maximum<int64_t>(1, MOST_PAIRS / top_k);
    for (int64_t token = 0; token < tokens; token += step) mixture.run(token, minimum(step, tokens - token));
}

} // namespace tramontane::TM_ISA
