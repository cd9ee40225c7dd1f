// SPDX-License-Identifier: Apache-2.0
// Memory that kernels work in: scratch that grows and is kept, and advice on pages.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tramontane {

// One piece of memory, aligned to a cache line. Growing loses what it held; null where there is no memory left.
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch();

    char* reserve(int64_t bytes);

  private:
    char* data_ = nullptr;
    int64_t size_ = 0;
};

// Asks the kernel to back the whole huge pages inside the range with huge pages. No promise, no failure.
void advise_huge_pages(void* start, int64_t bytes);

} // namespace tramontane
