// SPDX-License-Identifier: Apache-2.0
// Places in the paged cache.
#pragma once
#include "kernels/simd.h"

namespace tramontane::TM_ISA {

// The entry of one head at a slot (block * block tokens + offset).
template <class C> inline C* entry(const tm_plane& plane, int64_t block_tokens, int64_t slot, int64_t head) {
    const int64_t block = slot / block_tokens, offset = slot % block_tokens;
    char* base = static_cast<char*>(plane.data);
    return reinterpret_cast<C*>(base + block * plane.block_stride + offset * plane.token_stride + head * plane.head_stride);
}

template <class T, class C> inline void copy_entry(const T* from, C* to, int64_t width) {
    for (int64_t i = 0; i < width; i += W) store_up_to(to + i, load_up_to(from + i, width - i), width - i);
}

// An entry of whole numbers: the largest magnitude becomes 127; the scale follows.
template <class T> inline void copy_entry(const T* from, i8* to, int64_t width) {
    VF most = zero();
    for (int64_t i = 0; i < width; i += W) {
        const VF value = load_up_to(from + i, width - i);
        most = max_v(most, max_v(value, zero() - value));
    }
    const float scale = highest(most) / 127.0f;
    const VF divisor = splat(scale == 0 ? 1.0f : scale);
    for (int64_t i = 0; i < width; i += W) store_up_to(to + i, load_up_to(from + i, width - i) / divisor, width - i);
    memcpy(to + width, &scale, sizeof scale);
}

inline float entry_scale(const char* entry, int64_t width) {
    float scale;
    memcpy(&scale, entry + width, sizeof scale);
    return scale;
}

} // namespace tramontane::TM_ISA
