// Semantic-pixel matching on the block of one pair: an assignment of least total cost
// 1 - raw_ij row_scale_i column_scale_j, and the mean of the `top_k` largest entries of a second
// block over the assigned pairs. No gradient flows through the assignment.
//
// "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/assignment.h"
#include "core/assignment/status.h"
#include "core/assignment/workspace.h"
#include "core/matching/block.h"
#include "core/matching/match_order.h"

namespace lwfm {

// Memory of one thread.
template <class T>
struct MatchingWorkspace {
  struct Match {
    T cosine;
    std::int64_t row;
  };

  Workspace solver;
  std::vector<T> cost;         // [rows, columns]
  std::vector<T> cosines;      // [rows]
  std::vector<Match> matches;  // of the assigned rows, the largest first

  CostMatrix<T> cost_matrix(const BlockView<const T>& shape) const {
    return {cost.data(), shape.rows, shape.columns, shape.columns, 1};
  }
};

// Writes the column of each row, -1 for a row without one; the costs stay in the workspace.
template <class T>
Status match_positions(MatchingWorkspace<T>& workspace, const ScaledBlock<T>& block,
                       std::int64_t* assignment) {
  const BlockView<const T>& raw = block.raw;
  workspace.cost.resize(static_cast<std::size_t>(raw.rows * raw.columns));
  for (std::int64_t j = 0; j < raw.columns; ++j) {  // nearly always positions i are adjacent
    const T* from = raw.data + j * raw.column_stride;
    T* cost = workspace.cost.data() + j;
    const T scale = block.column_scale[j];
    for (std::int64_t i = 0; i < raw.rows; ++i, from += raw.row_stride, cost += raw.columns) {
      *cost = T{1} - *from * block.row_scale[i] * scale;
    }
  }
  return solve(workspace.cost_matrix(raw), {}, workspace.solver, assignment);
}

// Puts the `top_k` most similar matches first, in the order of `comes_first`. `cosines` are those
// of the rows; rows without a column are left out.
template <class T>
void select_matches(MatchingWorkspace<T>& workspace, const T* cosines,
                    const std::int64_t* assignment, std::int64_t rows, std::int64_t top_k) {
  auto& matches = workspace.matches;
  matches.clear();
  const auto before = [](const auto& one, const auto& other) {
    return comes_first(one.cosine, one.row, other.cosine, other.row);
  };
  if (top_k == 1) {  // no list of all
    for (std::int64_t i = 0; i < rows; ++i) {
      const typename MatchingWorkspace<T>::Match match{cosines[i], i};
      if (assignment[i] < 0) continue;
      if (matches.empty()) matches.push_back(match);
      if (before(match, matches[0])) matches[0] = match;
    }
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    if (assignment[i] >= 0) matches.push_back({cosines[i], i});
  }
  std::partial_sort(matches.begin(), matches.begin() + top_k, matches.end(), before);
}

// The same, with the cosines of a second block at the assigned pairs.
template <class T>
void select_matches(MatchingWorkspace<T>& workspace, const ScaledBlock<T>& compared,
                    const std::int64_t* assignment, std::int64_t top_k) {
  const std::int64_t rows = compared.raw.rows;
  workspace.cosines.assign(static_cast<std::size_t>(rows), T{0});
  for (std::int64_t i = 0; i < rows; ++i) {
    if (assignment[i] >= 0) {
      workspace.cosines[static_cast<std::size_t>(i)] = compared.at(i, assignment[i]);
    }
  }
  select_matches(workspace, workspace.cosines.data(), assignment, rows, top_k);
}

// The mean of the `top_k` matches that were selected.
template <class T>
T mean_of_matches(const MatchingWorkspace<T>& workspace, std::int64_t top_k) {
  T sum{0};
  for (std::int64_t k = 0; k < top_k; ++k) {
    sum += workspace.matches[static_cast<std::size_t>(k)].cosine;
  }
  return sum / static_cast<T>(top_k);
}

// 1 <= top_k <= min(rows, columns)
template <class T>
T matched_similarity(MatchingWorkspace<T>& workspace, const ScaledBlock<T>& compared,
                     const std::int64_t* assignment, std::int64_t top_k) {
  select_matches(workspace, compared, assignment, top_k);
  return mean_of_matches(workspace, top_k);
}

// Adds to the gradient of the compared block, all zero before, that of its matched similarity.
template <class T>
void matched_similarity_backward(MatchingWorkspace<T>& workspace, const ScaledBlock<T>& compared,
                                 const std::int64_t* assignment, std::int64_t top_k, T grad,
                                 const BlockGradient<T>& to) {
  select_matches(workspace, compared, assignment, top_k);
  const T share = grad / static_cast<T>(top_k);
  for (std::int64_t k = 0; k < top_k; ++k) {
    const std::int64_t i = workspace.matches[static_cast<std::size_t>(k)].row, j = assignment[i];
    const T raw = compared.raw.at(i, j);
    to.raw.at(i, j) = share * compared.row_scale[i] * compared.column_scale[j];
    to.row_scale[i] = share * raw * compared.column_scale[j];
    to.column_scale[j] = share * raw * compared.row_scale[i];
  }
}

}  // namespace lwfm
