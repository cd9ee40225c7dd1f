// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tramontane {

namespace {

constexpr int64_t LINE = 64;
constexpr uintptr_t HUGE_PAGE = uintptr_t{2} << 20;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

} // namespace

Scratch::~Scratch() { std::free(data_); }

char* Scratch::reserve(int64_t bytes) {
    if (bytes <= size_) return data_;
    std::free(data_);
    size_ = round_up(bytes + bytes / 4, LINE);
    data_ = static_cast<char*>(std::aligned_alloc(LINE, static_cast<size_t>(size_)));
    if (data_ == nullptr) size_ = 0;
    return data_;
}

void advise_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t first = (reinterpret_cast<uintptr_t>(start) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    const uintptr_t last = (reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes)) & ~(HUGE_PAGE - 1);
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)start;
    (void)bytes;
#endif
}

} // namespace tramontane
