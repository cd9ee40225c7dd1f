// SPDX-License-Identifier: Apache-2.0
// y = x W^T + b, and its gated form act(a) * b over the two halves of the outputs: the one driver of all products.
//
// It brings the activations to the forms that the parts' layouts ask for, hands out units of work (some panels by some
// rows), and finishes what layouts compute in float32: bias, gate, one rounding to y's type.
#include "isa.h"
#include "kernels/forms.h"
#include "kernels/functions.h"
#include "kernels/kernels.h"
#include "kernels/layouts/layout.h"
#include "kernels/layouts/tiles_amx.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t MOST_PARTS = 8;
constexpr int64_t MOST_TOGETHER = 8;  // panels of a unit
constexpr int64_t BLOCK_ROWS = 96;    // rows whose float32 results are kept at a time: a multiple of every tile
constexpr int64_t L2_BYTES = 1 << 20; // what the activations of a unit may take of a core's second-level cache

// The outputs that a unit computes: panels of one part, and with a gate the panels that go with them.
struct Piece {
    const tm_matrix* matrix = nullptr;
    const tm_matrix* gated = nullptr;
    int64_t panel = 0, gated_panel = 0, count = 0;
    int64_t output = 0, outputs = 0; // where they lie in y
};

// How a product is cut: pieces of outputs by chunks of rows.
class Cut {
  public:
    Cut(const tm_linear& linear, int64_t M) : linear_(linear) {
        parts_ = linear.gate == TM_NONE ? linear.count : gate_parts();
        for (int32_t i = 0; i < parts_; ++i) {
            const tm_matrix& part = linear.parts[i];
            together_[i] = minimum(MOST_TOGETHER, layout_of(part).together(part, M));
            pieces_[i + 1] = pieces_[i] + ceil_div(ceil_div(outputs(part), PANEL), together_[i]);
        }
        const int64_t fit = L2_BYTES / maximum<int64_t>(1, depth_of(linear.parts[0]) * 2);
        rows_ = maximum<int64_t>(BLOCK_ROWS, fit / BLOCK_ROWS * BLOCK_ROWS);
        chunks_ = maximum<int64_t>(1, ceil_div(M, rows_));
        rows_ = round_up(ceil_div(M, chunks_), BLOCK_ROWS);
    }

    int64_t units() const { return pieces_[parts_] * chunks_; }
    int64_t first_row(int64_t unit) const { return unit / pieces_[parts_] * rows_; }
    int64_t rows() const { return rows_; }

    Piece piece(int64_t unit) const {
        const int64_t index = unit % pieces_[parts_];
        Piece made;
        int32_t part = 0;
        for (; index >= pieces_[part + 1]; ++part) made.output += outputs(linear_.parts[part]);
        made.matrix = &linear_.parts[part];
        made.panel = (index - pieces_[part]) * together_[part];
        made.count = minimum(together_[part], ceil_div(outputs(*made.matrix), PANEL) - made.panel);
        made.output += made.panel * PANEL;
        made.outputs = minimum(made.count * PANEL, outputs(*made.matrix) - made.panel * PANEL);
        if (linear_.gate != TM_NONE) add_gate(made, part);
        return made;
    }

  private:
    // One matrix holds both halves, or the second half of the parts goes with the first.
    bool halved() const { return linear_.gate != TM_NONE && linear_.count == 1; }
    int32_t gate_parts() const { return halved() ? 1 : linear_.count / 2; }
    int64_t outputs(const tm_matrix& matrix) const { return halved() ? matrix.outputs / 2 : matrix.outputs; }

    void add_gate(Piece& piece, int32_t part) const {
        piece.gated = halved() ? piece.matrix : &linear_.parts[part + parts_];
        piece.gated_panel = piece.panel + (halved() ? piece.matrix->outputs / 2 / PANEL : 0);
    }

    const tm_linear& linear_;
    int32_t parts_ = 0;
    int64_t together_[MOST_PARTS], pieces_[MOST_PARTS + 1] = {0};
    int64_t rows_ = 0, chunks_ = 0;
};

VF bias_at(const tm_linear& linear, int64_t output, int64_t left) {
    if (linear.bias == nullptr) return zero();
    VF value = zero();
    with_activation_type(linear.bias_dtype, [&](auto type) {
        value = load_up_to(static_cast<const decltype(type)*>(linear.bias) + output, left);
    });
    return value;
}

// Finishes one row of a piece: `a`, and with a gate `b`, are float32 results.
template <class T> void finish_row(const tm_linear& linear, const Piece& piece, int64_t half, const float* a, const float* b, T* y) {
    int64_t i = 0;
    if (linear.bias == nullptr && b == nullptr)
        for (; i + W <= piece.outputs; i += W) Element<T>::store(y + piece.output + i, get<VF>(a + i));
    for (; i < piece.outputs; i += W) {
        const int64_t left = piece.outputs - i, output = piece.output + i;
        VF value = get<VF>(a + i) + bias_at(linear, output, left);
        if (b != nullptr) {
            // Rounded where the sequence of linear and gate rounds, so that fusing them changes no bit.
            const VF up = Element<T>::round(get<VF>(b + i) + bias_at(linear, half + output, left));
            value = Element<T>::round(activate(linear.gate, Element<T>::round(value))) * up;
        }
        store_up_to(y + output, value, left);
    }
}

struct Forms {
    Activations made[FORMS] = {};
};

bool wants(const tm_linear& linear, const Tensor& x, Form form) {
    for (int32_t i = 0; i < linear.count; ++i)
        if (layout_of(linear.parts[i]).form(linear.parts[i], x.dtype, x.rows) == form) return true;
    return false;
}

int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }

class Product {
  public:
    Product(const tm_linear& linear, const Tensor& x, const Tensor& y, const Forms& forms, const Cut& cut, char* scratch)
        : linear_(linear), x_(x), y_(y), forms_(forms), cut_(cut), results_(reinterpret_cast<float*>(scratch)),
          unpacked_(scratch + 2 * BLOCK_ROWS * MOST_TOGETHER * PANEL * sizeof(float)) {}

    void unit(int64_t index) {
        const Piece piece = cut_.piece(index);
        const int64_t first = cut_.first_row(index), last = minimum(x_.rows, first + cut_.rows());
        Form form = FORM_F32, gated_form = FORM_F32;
        char* scratch = unpacked_;
        const Panels a = open(*piece.matrix, piece.panel, piece.count, form, scratch);
        Panels b = {};
        if (piece.gated != nullptr) b = open(*piece.gated, piece.gated_panel, piece.count, gated_form, scratch);
        const int64_t width = piece.count * PANEL, half = linear_.gate == TM_NONE ? 0 : y_.width;
        float* gated = piece.gated == nullptr ? nullptr : results_ + BLOCK_ROWS * width;
        for (int64_t r = first; r < last; r += BLOCK_ROWS) {
            const int64_t rows = minimum(BLOCK_ROWS, last - r);
            a.multiply(a, forms_.made[form], r, rows, results_, width);
            if (gated != nullptr) b.multiply(b, forms_.made[gated_form], r, rows, gated, width);
            with_activation_type(y_.dtype, [&](auto type) {
                using T = decltype(type);
                for (int64_t i = 0; i < rows; ++i)
                    finish_row(linear_, piece, half, results_ + i * width, gated ? gated + i * width : nullptr,
                               y_.row<T>(r + i));
            });
        }
    }

  private:
    Panels open(const tm_matrix& matrix, int64_t panel, int64_t count, Form& form, char*& scratch) {
        const Layout& layout = layout_of(matrix);
        form = layout.form(matrix, x_.dtype, x_.rows);
        const Panels opened = layout.open(matrix, panel, count, x_.rows, form, scratch);
        scratch += aligned(layout.scratch(matrix, count, x_.rows));
        return opened;
    }

    const tm_linear& linear_;
    const Tensor &x_, &y_;
    const Forms& forms_;
    const Cut& cut_;
    float* results_;
    char* unpacked_;
};

} // namespace

Need linear_need(const Call& call) {
    const tm_linear& linear = call.as<tm_linear>();
    const Tensor& x = call.values[0];
    Need need;
    for (int32_t f = 0; f < FORMS; ++f)
        if (wants(linear, x, static_cast<Form>(f))) need.shared += aligned(form_bytes(x, static_cast<Form>(f)));
    for (int32_t i = 0; i < linear.count; ++i) {
        const tm_matrix& part = linear.parts[i];
        const int64_t unpacked = layout_of(part).scratch(part, MOST_TOGETHER, x.rows);
        need.own = maximum(need.own, 2 * aligned(unpacked));
    }
    need.own += 2 * BLOCK_ROWS * MOST_TOGETHER * PANEL * static_cast<int64_t>(sizeof(float));
    return need;
}

void linear(Worker& worker, const Call& call) {
    const tm_linear& linear = call.as<tm_linear>();
    const Tensor &x = call.values[0], &y = call.values[1];
    if (x.rows == 0) return;
    Forms forms;
    char* scratch = worker.shared();
    for (int32_t f = 0; f < FORMS; ++f) {
        const Form form = static_cast<Form>(f);
        if (!wants(linear, x, form)) continue;
        forms.made[f] = make_form(worker, x, form, scratch);
        scratch += aligned(form_bytes(x, form));
    }
    const Cut cut(linear, x.rows);
    Product product(linear, x, y, forms, cut, worker.own());
    worker.each_in_stretches(cut.units(), [&](int64_t unit) { product.unit(unit); });
#if defined(__AVX512BF16__)
    if (amx_enabled()) release_amx();
#endif
}

} // namespace tramontane::TM_ISA
