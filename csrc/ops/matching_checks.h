// What every matching operator checks, before and after.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "blocks.h"
#include "core/assignment/error_message.h"
#include "core/matching/pixel_matching.h"

namespace lwfm {

inline void require_top_k(std::int64_t rows, std::int64_t columns, std::int64_t top_k) {
  const std::int64_t pairs = std::min(rows, columns);
  require(top_k >= 1 && top_k <= pairs,
          "top_k must be 1 to " + std::to_string(pairs) + " (matched pairs)");
}

// Throws unless `compared` can stand in for `raw`.
inline void require_same_shape(const Tensor& raw, const Tensor& compared) {
  bool same = compared.dim() == raw.dim() && compared.scalar_type() == raw.scalar_type();
  for (std::int64_t d = 0; same && d < raw.dim(); ++d) same = compared.size(d) == raw.size(d);
  require(same, "compared must have the shape and the dtype of raw");
}

// Throws unless these belong to the forward pass that compared `compared`.
inline void require_of_forward(const Tensor& compared, const Tensor& grad,
                               const Tensor& assignment) {
  require(grad.dim() == compared.dim() - 2 && grad.scalar_type() == compared.scalar_type(),
          "grad must have the dtype and the batch of compared");
  require(assignment.dim() == compared.dim() - 1 && assignment.scalar_type() == ScalarType::Long &&
              assignment.is_contiguous(),
          "assignment must be the contiguous int64 tensor of the forward pass");
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
