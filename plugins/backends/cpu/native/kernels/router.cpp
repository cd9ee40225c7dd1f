// SPDX-License-Identifier: Apache-2.0
// Which experts each token goes to: logits in float32 whatever the activations are, then a choice token by token.
#include "kernels/forms.h"
#include "kernels/functions.h"
#include "kernels/kernels.h"
#include "kernels/layouts/layout.h"

namespace tramontane::TM_ISA {

namespace {

constexpr float NEVER = -INFINITY;

int64_t padded(const tm_router& router) { return panels_of(router.matrix) * PANEL; }

int64_t form_room(const tm_router& router, const Tensor& x) {
    (void)router;
    return round_up(form_bytes(x, FORM_F32), 64);
}

// Chooses for one token at a time; its arrays lie in one worker's scratch.
class Choice {
  public:
    Choice(const tm_router& router, char* scratch)
        : router_(router), experts_(router.matrix.outputs), scores_(reinterpret_cast<float*>(scratch)),
          wanted_(scores_ + padded(router)), groups_(wanted_ + padded(router)) {}

    static int64_t bytes(const tm_router& router) {
        return (2 * padded(router) + router.groups) * static_cast<int64_t>(sizeof(float));
    }

    void token(const float* logits, float* weights, int32_t* ids) {
        if (router_.scoring == TM_SCORE_SPARSEMIXER) {
            one_after_another(logits, weights, ids);
        } else {
            best_at_once(logits, weights, ids);
        }
        float factor = router_.scale;
        if (router_.normalize) {
            float total = 1e-20f; // above zero where every score underflows
            for (int64_t k = 0; k < router_.top_k; ++k) total += weights[k];
            factor /= total;
        }
        for (int64_t k = 0; k < router_.top_k; ++k) weights[k] *= factor;
    }

  private:
    void best_at_once(const float* logits, float* weights, int32_t* ids) {
        score(logits);
        for (int64_t e = 0; e < experts_; ++e)
            wanted_[e] = router_.correction == nullptr ? scores_[e] : scores_[e] + router_.correction[e];
        if (router_.groups > 1) keep_best_groups();
        for (int64_t k = 0; k < router_.top_k; ++k) {
            ids[k] = take_best(wanted_, ids, k);
            weights[k] = scores_[ids[k]];
        }
    }

    void score(const float* logits) {
        if (router_.scoring == TM_SCORE_SIGMOID) {
            for (int64_t e = 0; e < padded(router_); e += W) put(scores_ + e, sigmoid_v(get<VF>(logits + e)));
            return;
        }
        float most = NEVER, total = 0;
        for (int64_t e = 0; e < experts_; ++e) most = maximum(most, logits[e]);
        for (int64_t e = 0; e < padded(router_); e += W) put(scores_ + e, exp_v(get<VF>(logits + e) - most));
        for (int64_t e = 0; e < experts_; ++e) total += scores_[e];
        for (int64_t e = 0; e < experts_; ++e) scores_[e] /= total;
    }

    // The best of the experts that are not among the `count` taken; the first of equal ones. Always some expert, even
    // where nothing can be compared.
    int32_t take_best(const float* values, const int32_t* taken, int64_t count) const {
        int32_t best = -1;
        for (int32_t e = 0; e < experts_; ++e) {
            if (best >= 0 && !(values[e] > values[best])) continue;
            bool free = true;
            for (int64_t k = 0; k < count; ++k) free = free && taken[k] != e;
            if (free) best = e;
        }
        return best;
    }

    void keep_best_groups() {
        const int64_t each = experts_ / router_.groups;
        for (int64_t g = 0; g < router_.groups; ++g) {
            float first = NEVER, second = NEVER;
            for (int64_t e = g * each; e < (g + 1) * each; ++e) {
                if (wanted_[e] > first) {
                    second = first, first = wanted_[e];
                } else {
                    second = maximum(second, wanted_[e]);
                }
            }
            groups_[g] = router_.group_best == 1 ? first : first + second;
        }
        for (int64_t left = router_.groups; left > router_.top_groups; --left) {
            int64_t worst = -1; // the last of equal ones, so that the first are kept
            for (int64_t g = 0; g < router_.groups; ++g)
                if (groups_[g] == groups_[g] && (worst < 0 || groups_[g] <= groups_[worst])) worst = g;
            if (worst < 0) return;
            groups_[worst] = NAN;
            for (int64_t e = worst * each; e < (worst + 1) * each; ++e) wanted_[e] = NEVER;
        }
    }

    // Each expert's weight is its share among those that are left and come near it.
    void one_after_another(const float* logits, float* weights, int32_t* ids) {
        for (int64_t k = 0; k < router_.top_k; ++k) {
            ids[k] = take_best(logits, ids, k);
            const float best = logits[ids[k]];
            float total = 0;
            for (int64_t e = 0; e < padded(router_); e += W) put(scores_ + e, exp_v(get<VF>(logits + e) - best));
            for (int64_t e = 0; e < experts_; ++e) {
                const float far = (best - logits[e]) / maximum(fabsf(logits[e]), best);
                bool left = !(far > 2 * router_.jitter);
                for (int64_t j = 0; j < k; ++j) left = left && ids[j] != e;
                if (left) total += scores_[e];
            }
            weights[k] = scores_[ids[k]] / total;
        }
    }

    const tm_router& router_;
    int64_t experts_;
    float *scores_, *wanted_, *groups_;
};

} // namespace

Need router_need(const Call& call) {
    const tm_router& router = call.as<tm_router>();
    const Tensor& x = call.values[0];
    const int64_t logits = x.rows * padded(router) * static_cast<int64_t>(sizeof(float));
    return {form_room(router, x) + logits, Choice::bytes(router)};
}

void router(Worker& worker, const Call& call) {
    const tm_router& router = call.as<tm_router>();
    const Tensor &x = call.values[0], &weights = call.values[1], &ids = call.values[2];
    if (x.rows == 0) return;
    const Activations rows = make_form(worker, x, FORM_F32, worker.shared());
    float* logits = reinterpret_cast<float*>(worker.shared() + form_room(router, x));
    const int64_t width = padded(router);
    worker.each(panels_of(router.matrix), 1, [&](int64_t begin, int64_t end) {
        const Panels panels = layout_of(router.matrix).open(router.matrix, begin, end - begin, x.rows, FORM_F32, nullptr);
        panels.multiply(panels, rows, 0, x.rows, logits + begin * PANEL, width);
    });
    Choice choice(router, worker.own());
    worker.each(x.rows, 8, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            float* row = logits + t * width;
            if (router.bias != nullptr)
                for (int64_t e = 0; e < router.matrix.outputs; ++e) row[e] += router.bias[e];
            choice.token(row, weights.row<float>(t), ids.row<int32_t>(t));
        }
    });
}

} // namespace tramontane::TM_ISA
