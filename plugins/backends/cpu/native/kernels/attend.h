// SPDX-License-Identifier: Apache-2.0
// Attention over the paged cache, cut into tasks that are computed alone: some tokens of one row, the query heads of one
// key/value head, some keys. Two ways to compute a task: attend_one for a single token, attend_block for many.
//
// The softmax is computed online (Milakov and Gimelshein, 2018): a running maximum, the sum of exponentials relative to
// it, and the weighted values.
#pragma once
#include "kernels/cache.h"
#include "kernels/kernels.h"

namespace tramontane::TM_ISA {

struct Task {
    int64_t row, head;         // row of the batch, key/value head
    int64_t token, tokens;     // in the step
    int64_t position;          // of the first token in its sequence
    int64_t first_key, last_key; // keys to see, those that a window or the future hides included
};

// What a softmax over some keys has come to, for each of the task's queries: tokens by heads.
struct Softmax {
    float* highest; // [queries]
    float* total;   // [queries]
    float* values;  // [queries, width]
    int64_t width;  // value dimension, padded to a panel
};

inline int64_t folded(const tm_attend& attend) { return attend.heads / attend.kv_heads; }
inline int64_t value_width(const tm_attend& attend) { return round_up(attend.value_dim, 16); }

// Entries of this type end with a scale.
template <class C> constexpr bool SCALED = false;
template <> inline constexpr bool SCALED<i8> = true;
// Features of the entry in which a value lies: where keys and values share one, it is the key's.
inline int64_t entry_width(const tm_attend& attend) {
    return attend.cache.keys.data == attend.cache.values.data ? attend.head_dim : attend.value_dim;
}

constexpr float NOTHING_YET = -3.0e38f; // below any score

// Query heads of one key/value head over a contiguous range of keys, for one token. `out` starts empty.
void attend_one(const tm_attend&, const Call&, const Task&, Softmax& out, char* scratch);
int64_t attend_one_scratch(const tm_attend&);

// The same for up to BLOCK_QUERIES tokens times heads.
constexpr int64_t BLOCK_QUERIES = 256;
void attend_block(const tm_attend&, const Call&, const Task&, Softmax& out, char* scratch);
int64_t attend_block_scratch(const tm_attend&);

inline int64_t block_tokens(const tm_attend& attend) { return maximum<int64_t>(1, BLOCK_QUERIES / folded(attend)); }

// Where the keys or values of consecutive positions lie: runs end with their cache block.
struct Run {
    const char* data;
    int64_t stride, count; // bytes between positions
};

inline Run run_at(const tm_attend& attend, const tm_plane& plane, const tm_step& step, const Task& task, int64_t key, int64_t last) {
    const tm_group& group = step.groups[attend.cache.group];
    const int64_t size = attend.cache.block_tokens, offset = key % size;
    const int64_t block = group.table[task.row * group.table_stride + key / size];
    const char* data = static_cast<const char*>(plane.data) + block * plane.block_stride + offset * plane.token_stride +
                       task.head * plane.head_stride;
    return {data, plane.token_stride, minimum(size - offset, last - key)};
}

} // namespace tramontane::TM_ISA
