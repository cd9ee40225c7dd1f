// SPDX-License-Identifier: Apache-2.0
// Ops with a state per sequence: a short convolution, and linear attention by the gated delta rule. Channels, and columns
// of a head's state, know nothing of each other: a unit takes some of them through all tokens of one row.
#include "kernels/functions.h"
#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t SPAN = 64;                 // channels or columns of a unit
constexpr int64_t VECTORS = SPAN / W;
constexpr float TINY = 1e-6f;                // keeps lengths above zero

// The tokens of a row, and where its state lies.
struct Row {
    int64_t first, last;
    char* state;
    bool fresh;

    Row(const tm_state& state_of, const tm_step& step, int64_t row)
        : first(step.q_start[row]), last(step.q_start[row + 1]),
          state(static_cast<char*>(state_of.data) + step.state_slot[row] * state_of.slot_stride),
          fresh(step.state_fresh[row] != 0) {}
};

// Runs f(row, span) over rows that have tokens and `spans` spans of each.
template <class F> void units(Worker& worker, const Call& call, const tm_state& state, int64_t spans, F&& f) {
    worker.each(call.step->rows * spans, 1, [&](int64_t unit, int64_t) {
        const Row row(state, *call.step, unit / spans);
        if (row.first < row.last) f(row, unit % spans);
    });
}

// Padding tokens belong to no row; nobody reads them, but no NaN either.
void clear_padding(Worker& worker, const Call& call, const Tensor& y) {
    const int64_t used = call.step->q_start[call.step->rows];
    worker.each(y.rows - used, 64, [&](int64_t begin, int64_t end) {
        for (int64_t t = used + begin; t < used + end; ++t)
            memset(y.row<char>(t), 0, static_cast<size_t>(y.width * size_of(y.dtype)));
    });
}

// --- convolution -----------------------------------------------------------------------------------------------------

// T activations, S the state's type.
template <class T, class S> void convolve(const tm_causal_conv& conv, const Call& call, const Row& row, int64_t channel, float* past) {
    const Tensor &x = call.values[0], &y = call.values[1];
    const int64_t count = minimum(SPAN, x.width - channel), kept = conv.width - 1;
    S* state = reinterpret_cast<S*>(row.state) + channel * kept; // [channels, kept]
    for (int64_t w = 0; w < kept; ++w)
        for (int64_t c = 0; c < SPAN; ++c) past[w * SPAN + c] = row.fresh || c >= count ? 0.0f : to_float(state[c * kept + w]);
    int64_t oldest = 0; // the inputs before the current one lie in a ring
    for (int64_t t = row.first; t < row.last; ++t) {
        for (int64_t i = 0; i < count; i += W) {
            const int64_t left = count - i;
            const VF now = Element<S>::round(load_up_to(x.row<T>(t) + channel + i, left));
            VF total = zero();
            for (int64_t w = 0; w < kept; ++w) {
                const int64_t at = oldest + w < kept ? oldest + w : oldest + w - kept;
                total = fma(get<VF>(past + at * SPAN + i), load_up_to(conv.weight + w * x.width + channel + i, left), total);
            }
            total = fma(now, load_up_to(conv.weight + kept * x.width + channel + i, left), total);
            store_up_to(y.row<T>(t) + channel + i, activate(conv.activation, total), left);
            if (kept > 0) put(past + oldest * SPAN + i, now);
        }
        if (kept > 0) oldest = oldest + 1 < kept ? oldest + 1 : 0;
    }
    for (int64_t w = 0; w < kept; ++w) {
        const int64_t at = oldest + w < kept ? oldest + w : oldest + w - kept;
        for (int64_t c = 0; c < count; ++c) store_some(state + c * kept + w, splat(past[at * SPAN + c]), 1);
    }
}

// --- the gated delta rule --------------------------------------------------------------------------------------------

float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// A vector of queries or keys at length `length`.
template <class T> void unit_vector(const T* x, int64_t width, float length, float* to) {
    VF squares = zero();
    for (int64_t i = 0; i < width; i += W) {
        const VF value = load_up_to(x + i, width - i);
        squares = fma(value, value, squares);
    }
    const float factor = length / sqrtf(sum(squares) + TINY);
    for (int64_t i = 0; i < width; i += W) store_up_to(to + i, load_up_to(x + i, width - i) * factor, width - i);
}

// What a unit works in: [key_dim, SPAN] of the state, a query and a key.
struct Room {
    float *state, *query, *key;
};

Room divide(const tm_gated_delta& delta, char* scratch) {
    float* at = reinterpret_cast<float*>(scratch);
    return {at, at + delta.key_dim * SPAN, at + delta.key_dim * SPAN + round_up(delta.key_dim, 16)};
}

// One token: decays the state, corrects what it says of the key towards the value, and asks it for the query.
void advance(const tm_gated_delta& delta, const Room& room, VF* values, float beta, float decay) {
    VF known[VECTORS], made[VECTORS];
    for (VF& one : known) one = zero();
    for (int64_t k = 0; k < delta.key_dim; ++k)
        for (int64_t v = 0; v < VECTORS; ++v)
            known[v] = fma(get<VF>(room.state + k * SPAN + v * W), splat(room.key[k]), known[v]);
    for (int64_t v = 0; v < VECTORS; ++v) {
        values[v] = (values[v] - known[v] * decay) * beta;
        made[v] = zero();
    }
    for (int64_t k = 0; k < delta.key_dim; ++k) {
        const VF key = splat(room.key[k]), query = splat(room.query[k]);
        for (int64_t v = 0; v < VECTORS; ++v) {
            float* at = room.state + k * SPAN + v * W;
            const VF state = fma(key, values[v], get<VF>(at) * decay);
            put(at, state);
            made[v] = fma(state, query, made[v]);
        }
    }
    for (int64_t v = 0; v < VECTORS; ++v) values[v] = made[v];
}

template <class T>
void run_delta(const tm_gated_delta& delta, const Call& call, const Row& row, int64_t head, int64_t column, const Room& room) {
    const Tensor &q = call.values[0], &k = call.values[1], &v = call.values[2], &write = call.values[3],
                 &keep = call.values[4], &y = call.values[5];
    const int64_t count = minimum(SPAN, delta.value_dim - column);
    const int64_t from = head / (delta.value_heads / delta.key_heads) * delta.key_dim, to = head * delta.value_dim + column;
    float* kept = reinterpret_cast<float*>(row.state) + head * delta.key_dim * delta.value_dim + column;
    for (int64_t i = 0; i < delta.key_dim; ++i)
        for (int64_t c = 0; c < SPAN; c += W)
            put(room.state + i * SPAN + c,
                row.fresh || c >= count ? zero() : load_up_to(kept + i * delta.value_dim + c, count - c));
    const float scale = 1.0f / sqrtf(static_cast<float>(delta.key_dim));
    for (int64_t t = row.first; t < row.last; ++t) {
        unit_vector(q.row<T>(t) + from, delta.key_dim, scale, room.query);
        unit_vector(k.row<T>(t) + from, delta.key_dim, 1.0f, room.key);
        const float beta = sigmoid_v(splat(to_float(write.row<T>(t)[head])))[0];
        const float decay = expf(delta.rate[head] * softplus(to_float(keep.row<T>(t)[head]) + delta.shift[head]));
        VF values[VECTORS];
        for (int64_t c = 0; c < VECTORS; ++c)
            values[c] = c * W < count ? load_up_to(v.row<T>(t) + to + c * W, count - c * W) : zero();
        advance(delta, room, values, beta, decay);
        for (int64_t c = 0; c * W < count; ++c) store_up_to(y.row<T>(t) + to + c * W, values[c], count - c * W);
    }
    for (int64_t i = 0; i < delta.key_dim; ++i)
        for (int64_t c = 0; c < count; c += W)
            store_up_to(kept + i * delta.value_dim + c, get<VF>(room.state + i * SPAN + c), count - c);
}

} // namespace

Need causal_conv_need(const Call& call) {
    return {0, call.as<tm_causal_conv>().width * SPAN * static_cast<int64_t>(sizeof(float))};
}

void causal_conv(Worker& worker, const Call& call) {
    const tm_causal_conv& conv = call.as<tm_causal_conv>();
    const Tensor& y = call.values[1];
    units(worker, call, conv.state, ceil_div(y.width, SPAN), [&](const Row& row, int64_t span) {
        with_activation_type(y.dtype, [&](auto type) {
            with_float_type(conv.state.dtype, [&](auto state) {
                convolve<decltype(type), decltype(state)>(conv, call, row, span * SPAN, reinterpret_cast<float*>(worker.own()));
            });
        });
    });
    clear_padding(worker, call, y);
}

Need gated_delta_need(const Call& call) {
    const int64_t key_dim = call.as<tm_gated_delta>().key_dim;
    return {0, (key_dim * SPAN + 2 * round_up(key_dim, 16)) * static_cast<int64_t>(sizeof(float))};
}

void gated_delta(Worker& worker, const Call& call) {
    const tm_gated_delta& delta = call.as<tm_gated_delta>();
    const Tensor& y = call.values[5];
    const int64_t spans = ceil_div(delta.value_dim, SPAN);
    const Room room = divide(delta, worker.own());
    units(worker, call, delta.state, delta.value_heads * spans, [&](const Row& row, int64_t unit) {
        with_activation_type(y.dtype, [&](auto type) {
            run_delta<decltype(type)>(delta, call, row, unit / spans, unit % spans * SPAN, room);
        });
    });
    clear_padding(worker, call, y);
}

} // namespace tramontane::TM_ISA
