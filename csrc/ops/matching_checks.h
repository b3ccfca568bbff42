// What every matching operator checks, before and after.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "blocks.h"
#include "core/failure.h"
#include "core/pixel_matching.h"

namespace lwfm {

inline void require_top_k(std::int64_t rows, std::int64_t columns, std::int64_t top_k) {
  const std::int64_t pairs = std::min(rows, columns);
  require(top_k >= 1 && top_k <= pairs,
          "top_k must be 1 to " + std::to_string(pairs) + " (matched pairs)");
}

// Throws for the first pair without an assignment, naming the entry that is to blame.
template <class T>
void require_solved(const std::vector<Status>& statuses, const ScaledBlocks<T>& blocks,
                    std::int64_t* scratch) {
  const auto bad = std::find_if(statuses.begin(), statuses.end(),
                                [](Status status) { return status != Status::ok; });
  if (bad == statuses.end()) return;
  if (*bad == Status::out_of_memory) throw std::bad_alloc();
  const std::int64_t p = bad - statuses.begin();
  MatchingWorkspace<T> workspace;
  match_positions(workspace, blocks[p], scratch);
  throw std::invalid_argument(describe_failure(*bad, workspace.cost_matrix(blocks[p].raw), false,
                                               "cost", blocks.raw.batch().index_of(p)));
}

}  // namespace lwfm
