// What lwfm::feature_matching and its backward check and allocate, on any device; the contract
// is in feature_matching.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/assignment/error_message.h"
#include "core/matching/feature_matching.h"
#include "tensor_views.h"

namespace lwfm {

inline void require_top_k(std::int64_t rows, std::int64_t columns, std::int64_t top_k) {
  const std::int64_t pairs = std::min(rows, columns);
  require(top_k >= 1 && top_k <= pairs, "top_k must be 1 to ", std::to_string(pairs),
          " (matched pairs)");
}

// Which images are compared: all pairs [Q, S], or image p with image p.
struct Pairing {
  bool paired;
  std::int64_t S, Q;
};

// Throws unless the arguments of the operator belong together.
inline Pairing require_feature_matching(const Tensor& raw, const Tensor& row_scale,
                                        const Tensor& column_scale, const Tensor& support,
                                        const Tensor& query, std::int64_t top_k) {
  require_blocks(raw, row_scale, column_scale, "raw");
  require(raw.dim() == 3 || raw.dim() == 4, "raw must be [Q, S, P, M] or [B, P, M]");
  require(raw.scalar_type() == support.scalar_type(), "features must have the dtype of raw");
  const Pairing pairing{raw.dim() == 3, raw.dim() == 3 ? raw.size(0) : raw.size(1), raw.size(0)};
  const std::int64_t P = raw.size(raw.dim() - 2), M = raw.size(raw.dim() - 1);
  require(support.dim() == 3 && query.dim() == 3 && support.size(0) == pairing.S &&
              query.size(0) == pairing.Q && support.size(1) == P && query.size(1) == M &&
              support.size(2) == query.size(2) && support.scalar_type() == query.scalar_type(),
          "support must be [S, P, D] and query [Q, M, D] of one dtype, for the pairs of raw");
  require_top_k(P, M, top_k);
  return pairing;
}

// What the operator returns.
struct MatchedFeatures {
  Tensor similarity, assignment, cosines;
};

inline MatchedFeatures empty_matches(const Tensor& raw) {
  const std::int64_t P = raw.size(raw.dim() - 2);
  return {empty_for(raw, {}, raw.scalar_type()), empty_for(raw, {P}, ScalarType::Long),
          empty_for(raw, {P}, raw.scalar_type())};
}

// Throws unless the arguments of the backward operator belong together.
inline Pairing require_matching_gradient(const Tensor& grad, const Tensor& support,
                                         const Tensor& query, const MatchedFeatures& forward,
                                         std::int64_t top_k) {
  const ScalarType dtype = support.scalar_type();
  const Tensor &assignment = forward.assignment, &cosines = forward.cosines;
  require(dtype == ScalarType::Float || dtype == ScalarType::Double,
          "support must be float32 or float64");
  require(support.dim() == 3 && query.dim() == 3 && support.size(2) == query.size(2) &&
              query.scalar_type() == dtype,
          "support must be [S, P, D] and query [Q, M, D] of one dtype");
  const Pairing pairing{grad.dim() == 1, support.size(0), query.size(0)};
  const std::vector<std::int64_t> pairs =
      pairing.paired ? std::vector{pairing.S} : std::vector{pairing.Q, pairing.S};
  std::vector<std::int64_t> rows = pairs;
  rows.push_back(support.size(1));
  require(!pairing.paired || pairing.S == pairing.Q,
          "as many support images as queries make pairs");
  require(grad.scalar_type() == dtype && has_shape(grad, pairs),
          "grad must have the dtype of support, and the shape [Q, S] or [B] of the similarity");
  require(assignment.scalar_type() == ScalarType::Long && cosines.scalar_type() == dtype &&
              has_shape(assignment, rows) && has_shape(cosines, rows),
          "assignment and cosines must be those of the forward pass, [Q, S, P] or [B, P]");
  require_top_k(support.size(1), query.size(1), top_k);
  return pairing;
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
