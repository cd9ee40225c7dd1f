// SPDX-License-Identifier: Apache-2.0
// What drawing a token is made of: weights of logits, the largest of them in order, and the mass of all.
//
// Candidates are in descending order of logit, equal logits by ascending id: the order of tramontane.sampler.select, whose
// results these are, but for the rounding of sums. A candidate is one number, its key, that orders both.
#pragma once
#include <cmath>

#include "kernels/functions.h"

namespace tramontane::TM_ISA {

constexpr float LARGEST = 3.402823466e38f;
// Below this exp counts as zero: sums in float32 do not see it beside the largest weight, which is 1.
constexpr float FAINTEST = -80.0f;

// --- keys ------------------------------------------------------------------------------------------------------------

// Whole numbers in the order of floats, both zeros being one.
inline int32_t ordered(float value) {
    value += 0.0f;
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline uint64_t key_of(float value, int64_t id) {
    const uint32_t high = static_cast<uint32_t>(ordered(value)) ^ 0x80000000u;
    return static_cast<uint64_t>(high) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}

inline int64_t id_of(uint64_t key) { return 0xffffffffu - static_cast<uint32_t>(key); }

inline float value_of(uint64_t key) {
    const int32_t order = static_cast<int32_t>(static_cast<uint32_t>(key >> 32) ^ 0x80000000u);
    const int32_t bits = order ^ ((order >> 31) & 0x7fffffff);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// The most so many keys of those pushed: a heap with the smallest at its root, in memory of the caller's.
class Largest {
  public:
    Largest(uint64_t* keys, int64_t most) : keys_(keys), most_(most) {}

    int64_t count() const { return count_; }
    bool full() const { return count_ == most_; }
    float least() const { return value_of(keys_[0]); }

    void push(uint64_t key) {
        if (!full()) {
            int64_t at = count_++;
            for (; at > 0 && keys_[(at - 1) / 2] > key; at = (at - 1) / 2) keys_[at] = keys_[(at - 1) / 2];
            keys_[at] = key;
        } else if (key > keys_[0]) {
            sink(key, count_);
        }
    }

    // Puts the keys in descending order; nothing can be pushed afterwards.
    const uint64_t* sort() {
        for (int64_t left = count_; left > 1; --left) {
            const uint64_t least = keys_[0], last = keys_[left - 1];
            sink(last, left - 1);
            keys_[left - 1] = least;
        }
        return keys_;
    }

  private:
    // Puts a key at the root and lets it sink in a heap of so many.
    void sink(uint64_t key, int64_t count) {
        int64_t at = 0;
        for (int64_t child = 1; child < count; child = 2 * at + 1) {
            if (child + 1 < count && keys_[child + 1] < keys_[child]) ++child;
            if (keys_[child] >= key) break;
            keys_[at] = keys_[child];
            at = child;
        }
        keys_[at] = key;
    }

    uint64_t* keys_;
    int64_t most_, count_ = 0;
};

// --- a row -----------------------------------------------------------------------------------------------------------

// A row of logits, seen in blocks of BLOCK whose largest logit is known, and what its request asks for.
struct LogitRow {
    static constexpr int64_t BLOCK = 64, SPAN = 256; // elements of a block, and of what is summed together

    const float* logits;
    int64_t vocab;
    const float* maxima; // of blocks; NaN where one is in the block
    float peak;          // the largest, NaN if there is one
    float temperature;
    double min_p;

    int64_t blocks() const { return ceil_div(vocab, BLOCK); }
    int64_t spans() const { return ceil_div(vocab, SPAN); }
    float top() const { return minimum(peak, LARGEST); }

    // exp((logit - largest) / temperature) from element i on, 0 past the end; `floor`: 0 below min-p as well.
    VF weights(int64_t i, bool floor) const {
        const int64_t left = vocab - i;
        const VF x = left >= W ? get<VF>(logits + i) : past_end(left);
        const VF scaled = (min_v(x, splat(LARGEST)) - splat(top())) / splat(temperature);
        const VF weight = scaled < splat(FAINTEST) ? zero() : exp_v(scaled);
        return floor ? (weight < splat(static_cast<float>(min_p)) ? zero() : weight) : weight;
    }

    // The same of one logit, and in double precision.
    float weight(float logit, bool floor) const {
        const float scaled = (minimum(logit, LARGEST) - top()) / temperature;
        const float found = scaled < FAINTEST ? 0.0f : exp_v(splat(scaled))[0];
        return floor && found < static_cast<float>(min_p) ? 0.0f : found;
    }
    double fine_weight(float logit) const {
        const double peak_logit = top();
        return exp((static_cast<double>(minimum(logit, LARGEST)) - peak_logit) / static_cast<double>(temperature));
    }

  private:
    VF past_end(int64_t left) const {
        VF x = splat(-INFINITY);
        for (int64_t j = 0; j < left; ++j) x[j] = logits[vocab - left + j];
        return x;
    }
};

} // namespace tramontane::TM_ISA
