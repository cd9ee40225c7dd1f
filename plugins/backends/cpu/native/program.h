// SPDX-License-Identifier: Apache-2.0
// A list of nodes, run from first to last in one region of the pool.
#pragma once
#include <vector>

#include "kernels/table.h"

namespace tramontane {

class Program {
  public:
    Program(const tm_node* nodes, int64_t count) : nodes_(nodes, nodes + count) {}

    int32_t run(Pool& pool, const tm_step& step);

  private:
    void resolve(const tm_step& step);

    std::vector<tm_node> nodes_;
    std::vector<Call> calls_;
    tm_step step_{}; // what calls_ were made for
};

} // namespace tramontane
