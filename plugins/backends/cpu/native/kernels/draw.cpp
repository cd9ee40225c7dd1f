// SPDX-License-Identifier: Apache-2.0
// One token for each row of logits: the arg-max, or a draw by inverse CDF from all of the vocabulary, from the k largest,
// or from as many as hold a share of the mass. tramontane.sampler.select says what each means.
//
// Nothing is sorted but the few candidates: where a flat row's mass is held by more, logits are put into buckets by their
// leading bits, and only the buckets in which the kept mass ends and in which the draw falls are.
#include "kernels/draw.h"

#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

namespace {

constexpr int64_t PIECE = 4096;      // elements of a unit of work
constexpr int64_t FEW = 512;         // candidates among which top-p looks first
constexpr int64_t BUCKETS = 1 << 16; // by the upper half of a key's order
constexpr float COLDEST = 1e-30f;

// --- passes over pieces of rows --------------------------------------------------------------------------------------

float largest_of(const float* logits, int64_t count) {
    VF most = splat(-INFINITY), poison = zero();
    int64_t i = 0;
    for (; i + W <= count; i += W) {
        const VF x = get<VF>(logits + i);
        most = max_v(x, most);
        poison += x == x ? zero() : x;
    }
    float found = highest(most), bad = sum(poison);
    for (; i < count; ++i) {
        if (logits[i] != logits[i]) bad = logits[i];
        found = maximum(found, logits[i]);
    }
    return bad != bad ? NAN : found;
}

float sum_of(const LogitRow& row, int64_t span) {
    VF total = zero();
    const int64_t first = span * LogitRow::SPAN, last = minimum(row.vocab, first + LogitRow::SPAN);
    for (int64_t i = first; i < last; i += W) total += row.weights(i, true);
    return sum(total);
}

// --- the largest -----------------------------------------------------------------------------------------------------

int64_t first_largest(const LogitRow& row) {
    for (int64_t b = 0; b < row.blocks(); ++b) {
        if (row.maxima[b] != row.peak) continue;
        for (int64_t i = b * LogitRow::BLOCK; i < row.vocab; ++i)
            if (row.logits[i] == row.peak) return i;
    }
    return 0;
}

// The count() largest, in descending order, in the heap's memory.
void find_largest(const LogitRow& row, Largest& largest) {
    for (int64_t b = 0; b < row.blocks(); ++b) {
        if (largest.full() && row.maxima[b] <= largest.least()) continue;
        const int64_t first = b * LogitRow::BLOCK, last = minimum(row.vocab, first + LogitRow::BLOCK);
        for (int64_t i = first; i < last; ++i)
            if (!largest.full() || row.logits[i] > largest.least()) largest.push(key_of(row.logits[i], i));
    }
    largest.sort();
}

// Draws among candidates in descending order. `mass` is what top-p is a share of.
int64_t draw_among(const LogitRow& row, const uint64_t* keys, int64_t count, double mass, double top_p, double uniform) {
    const double limit = top_p >= 1.0 ? INFINITY : top_p * mass;
    double kept = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double weight = row.fine_weight(value_of(keys[i]));
        // The one that crosses the limit stays; the first always does.
        if (i > 0 && !(kept < limit && weight >= row.min_p && weight > 0)) break;
        kept += weight;
        last = i;
    }
    const double target = uniform * kept;
    double end = 0;
    for (int64_t i = 0; i < last; ++i) {
        end += row.fine_weight(value_of(keys[i]));
        if (end > target) return id_of(keys[i]);
    }
    return id_of(keys[last]);
}

double mass_of(const LogitRow& row, const uint64_t* keys, int64_t count) {
    double mass = 0;
    for (int64_t i = 0; i < count; ++i) mass += row.fine_weight(value_of(keys[i]));
    return mass;
}

int64_t draw_top_k(const LogitRow& row, int64_t top_k, double top_p, double uniform, uint64_t* keys) {
    Largest largest(keys, minimum(maximum<int64_t>(top_k, 1), row.vocab));
    find_largest(row, largest);
    return draw_among(row, keys, largest.count(), mass_of(row, keys, largest.count()), top_p, uniform);
}

// --- the whole vocabulary --------------------------------------------------------------------------------------------

// The first of `count` weights at which the running sum, from `before` on, passes the target; the last one that is not
// zero where rounding lets none do so. `before` is then what came before it.
template <class F> int64_t first_beyond(int64_t count, double target, double& before, F&& weight) {
    int64_t last = 0;
    double end = before;
    for (int64_t i = 0; i < count; ++i) {
        const double one = weight(i);
        if (!(one > 0)) continue;
        before = end;
        end += one;
        last = i;
        if (end > target) break;
    }
    return last;
}

int64_t draw_full(const LogitRow& row, const float* sums, double uniform) {
    double total = 0, before = 0;
    for (int64_t s = 0; s < row.spans(); ++s) total += sums[s];
    const double target = uniform * total;
    const int64_t span = first_beyond(row.spans(), target, before, [&](int64_t s) { return sums[s]; });
    const int64_t first = span * LogitRow::SPAN, count = minimum(LogitRow::SPAN, row.vocab - first);
    return first + first_beyond(count, target, before, [&](int64_t i) { return row.weight(row.logits[first + i], true); });
}

// --- top-p -----------------------------------------------------------------------------------------------------------

// Weights by the leading bits of their logits: the draw needs no more order than that, but in two of the buckets.
class Buckets {
  public:
    Buckets(const LogitRow& row, double* masses, uint64_t* keys) : row_(row), masses_(masses), keys_(keys) {
        for (int64_t b = 0; b < BUCKETS; ++b) masses_[b] = 0;
        for (int64_t i = 0; i < row.vocab; i += W) {
            const VF weights = row.weights(i, true);
            const int64_t count = minimum<int64_t>(W, row.vocab - i);
            for (int64_t j = 0; j < count; ++j)
                if (weights[j] > 0) masses_[bucket_of(row.logits[i + j])] += weights[j];
        }
    }

    int64_t draw(double limit, double uniform) {
        int64_t last = BUCKETS - 1; // the bucket in which what is kept ends
        double before = 0, end = 0;
        for (int64_t b = BUCKETS - 1; b >= 0 && (end == 0 || end < limit); --b)
            if (masses_[b] > 0) last = b, before = end, end += masses_[b];
        const int64_t count = open(last);
        double kept = before;
        int64_t kept_here = 0;
        while (kept_here < count && (kept_here == 0 || kept < limit)) kept += weight(kept_here++);
        const double target = uniform * kept;
        return target < before ? draw_above(last, target) : draw_here(kept_here, before, target);
    }

  private:
    static int64_t bucket_of(float logit) { return (ordered(logit) >> 16) + BUCKETS / 2; }
    double weight(int64_t i) const { return row_.weight(value_of(keys_[i]), true); }

    // Gathers a bucket's candidates, in order.
    int64_t open(int64_t bucket) {
        Largest found(keys_, row_.vocab);
        for (int64_t i = 0; i < row_.vocab; ++i) {
            const float logit = row_.logits[i];
            if (bucket_of(logit) == bucket && row_.weight(logit, true) > 0) found.push(key_of(logit, i));
        }
        found.sort();
        return found.count();
    }

    int64_t draw_here(int64_t count, double before, double target) {
        return id_of(keys_[first_beyond(count, target, before, [&](int64_t i) { return weight(i); })]);
    }

    // In one of the buckets before the last.
    int64_t draw_above(int64_t last, double target) {
        double before = 0;
        const int64_t place = first_beyond(BUCKETS - 1 - last, target, before, [&](int64_t i) { return masses_[BUCKETS - 1 - i]; });
        return draw_here(open(BUCKETS - 1 - place), before, target);
    }

    const LogitRow& row_;
    double* masses_;
    uint64_t* keys_;
};

int64_t draw_top_p(const LogitRow& row, const float* sums, double top_p, double uniform, double* masses, uint64_t* keys) {
    double mass = 0;
    for (int64_t s = 0; s < row.spans(); ++s) mass += sums[s];
    Largest largest(keys, minimum(FEW, row.vocab));
    find_largest(row, largest);
    if (mass_of(row, keys, largest.count()) >= top_p * mass || largest.count() == row.vocab)
        return draw_among(row, keys, largest.count(), mass, top_p, uniform);
    return Buckets(row, masses, keys).draw(top_p * mass, uniform);
}

// --- all of it -------------------------------------------------------------------------------------------------------

// Where things lie in scratch memory.
struct Places {
    int64_t blocks, spans, masses, keys;

    explicit Places(const tm_draw& draw)
        : blocks(ceil_div(draw.vocab, LogitRow::BLOCK)), spans(ceil_div(draw.vocab, LogitRow::SPAN)),
          masses(draw.path == TM_DRAW_TOP_P ? BUCKETS : 0), keys(draw.path == TM_DRAW_TOP_P ? draw.vocab : 0) {
        if (draw.path != TM_DRAW_TOP_K) return;
        for (int64_t r = 0; r < draw.rows; ++r) keys = maximum(keys, minimum(draw.top_k[r], draw.vocab));
    }

    int64_t shared(int64_t rows) const { return rows * (blocks + spans) * static_cast<int64_t>(sizeof(float)); }
    int64_t own() const { return (masses + keys) * static_cast<int64_t>(sizeof(double)); }
};

class Draw {
  public:
    Draw(Worker& worker, const tm_draw& draw)
        : worker_(worker), draw_(draw), places_(draw), maxima_(reinterpret_cast<float*>(worker.shared())),
          sums_(maxima_ + draw.rows * places_.blocks), masses_(reinterpret_cast<double*>(worker.own())),
          keys_(reinterpret_cast<uint64_t*>(masses_ + places_.masses)) {}

    void run() {
        const int64_t pieces = ceil_div(draw_.vocab, PIECE);
        worker_.each(draw_.rows * pieces, 1, [&](int64_t unit, int64_t) { look(unit / pieces, unit % pieces); });
        if (draw_.path == TM_DRAW_FULL || draw_.path == TM_DRAW_TOP_P)
            worker_.each(draw_.rows * pieces, 1, [&](int64_t unit, int64_t) { add_up(unit / pieces, unit % pieces); });
        worker_.each(draw_.rows, 1, [&](int64_t r, int64_t) {
            const LogitRow row = row_of(r);
            draw_.peaks[r] = row.peak;
            // Of a row that nothing can be drawn from the caller hears by its peak.
            draw_.tokens[r] = row.peak > -INFINITY ? token(row, r) : 0;
        });
    }

  private:
    LogitRow row_of(int64_t r) const {
        const float* maxima = maxima_ + r * places_.blocks;
        const bool greedy = draw_.path == TM_DRAW_GREEDY;
        return {
            draw_.logits + r * draw_.stride, draw_.vocab, maxima, largest_of(maxima, places_.blocks),
            greedy ? 1.0f : maximum(draw_.temperature[r], COLDEST), greedy ? 0.0 : draw_.min_p[r],
        };
    }

    void look(int64_t r, int64_t piece) {
        const float* logits = draw_.logits + r * draw_.stride;
        for (int64_t first = piece * PIECE; first < minimum(draw_.vocab, (piece + 1) * PIECE); first += LogitRow::BLOCK)
            maxima_[r * places_.blocks + first / LogitRow::BLOCK] =
                largest_of(logits + first, minimum(LogitRow::BLOCK, draw_.vocab - first));
    }

    void add_up(int64_t r, int64_t piece) {
        LogitRow row = row_of(r);
        if (draw_.path == TM_DRAW_TOP_P) row.min_p = 0; // it is a share of the mass of all
        for (int64_t first = piece * PIECE; first < minimum(draw_.vocab, (piece + 1) * PIECE); first += LogitRow::SPAN)
            sums_[r * places_.spans + first / LogitRow::SPAN] = sum_of(row, first / LogitRow::SPAN);
    }

    int64_t token(const LogitRow& row, int64_t r) {
        const float* sums = sums_ + r * places_.spans;
        switch (draw_.path) {
        case TM_DRAW_GREEDY: return first_largest(row);
        case TM_DRAW_FULL: return draw_full(row, sums, draw_.uniform[r]);
        case TM_DRAW_TOP_K: return draw_top_k(row, draw_.top_k[r], draw_.top_p[r], draw_.uniform[r], keys_);
        default: return draw_top_p(row, sums, draw_.top_p[r], draw_.uniform[r], masses_, keys_);
        }
    }

    Worker& worker_;
    const tm_draw& draw_;
    const Places places_;
    float *maxima_, *sums_;
    double* masses_;
    uint64_t* keys_;
};

} // namespace

Need draw_need(const tm_draw& draw) {
    const Places places(draw);
    return {places.shared(draw.rows), places.own()};
}

void draw(Worker& worker, const tm_draw& draw) { Draw(worker, draw).run(); }

} // namespace tramontane::TM_ISA
