// SPDX-License-Identifier: Apache-2.0
// A list of nodes, run from first to last in one region of the pool.
#pragma once
#include <memory>
#include <vector>

#include "kernels/table.h"
#include "profile.h"

namespace tramontane {

class Program {
  public:
    Program(const tm_node* nodes, int64_t count) : nodes_(nodes, nodes + count), profile_(Profile::wanted(nodes_)) {}

    int32_t run(Pool& pool, const tm_step& step);

  private:
    void resolve(const tm_step& step);

    const std::vector<tm_node> nodes_;
    const std::unique_ptr<Profile> profile_; // null: not asked for
    std::vector<Call> calls_;
    tm_step step_{}; // what calls_ were made for
};

} // namespace tramontane
