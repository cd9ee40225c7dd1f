// SPDX-License-Identifier: Apache-2.0
// Where the time of steps goes: TRAMONTANE_CPU_PROFILE=1 makes every program print a table when it ends.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/table.h"

namespace tramontane {

// Times nodes by the clock of the calling thread, from the end of one to the end of the next: waiting for the other
// threads is part of a node. Reading the clock takes some 25 ns of each. Decoding steps and all others are told apart.
class Profile {
  public:
    // Null unless the environment asks for it.
    static std::unique_ptr<Profile> wanted(const std::vector<tm_node>& nodes);

    explicit Profile(const std::vector<tm_node>& nodes) : nodes_(nodes) {}
    ~Profile(); // prints

    void begin(const tm_step& step);
    void lap(size_t node);

  private:
    struct Kind { // of steps
        std::vector<int64_t> ns; // of each node, in all
        int64_t steps = 0, tokens = 0;
    };

    void print(const Kind& kind, const char* name) const;

    const std::vector<tm_node>& nodes_;
    Kind decoding_, others_;
    Kind* running_ = nullptr;
    int64_t last_ = 0;
};

} // namespace tramontane
