// Semantic-pixel matching of one pair of images: an assignment of least total cost 1 - cosine, the
// cosines of the matched positions' features, and the mean of the `top_k` largest with its
// derivative. Only the P matched pairs of P x M are ever compared, and only `top_k` of them have a
// gradient. No gradient flows through the assignment.
//
// "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/assignment.h"
#include "core/assignment/status.h"
#include "core/assignment/workspace.h"
#include "core/matching/block.h"
#include "core/matching/match_order.h"
#include "core/matching/norms.h"
#include "core/simd/rows.h"

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
  for (std::int64_t j = 0; j < raw.columns; ++j) {  // usually positions i are adjacent
    const T* from = raw.data + j * raw.column_stride;
    T* cost = workspace.cost.data() + j;
    const T scale = block.column_scale[j];
    for (std::int64_t i = 0; i < raw.rows; ++i, from += raw.row_stride, cost += raw.columns) {
      *cost = T{1} - *from * block.row_scale[i] * scale;
    }
  }
  return solve(workspace.cost_matrix(raw), {}, workspace.solver, assignment);
}

// The row of the most similar match, -1 if no row has a column; without branches.
template <class T>
std::int64_t most_similar_row(const T* cosines, const std::int64_t* assignment, std::int64_t rows) {
  std::int64_t best = -1;
  T greatest{0};
  for (std::int64_t i = 0; i < rows; ++i) {
    const bool is_next =
        static_cast<int>(assignment[i] >= 0) &
        (static_cast<int>(best < 0) | static_cast<int>(is_larger(cosines[i], greatest)));
    best = is_next ? i : best;
    greatest = is_next ? cosines[i] : greatest;
  }
  return best;
}

// Leaves the `top_k` most similar matches in the workspace, in the order of `comes_first`.
// `cosines` are those of the rows; rows without a column are left out.
template <class T>
void select_matches(MatchingWorkspace<T>& workspace, const T* cosines,
                    const std::int64_t* assignment, std::int64_t rows, std::int64_t top_k) {
  auto& matches = workspace.matches;
  matches.clear();
  if (top_k == 1) {  // no list of all
    const std::int64_t row = most_similar_row(cosines, assignment, rows);
    if (row >= 0) matches.push_back({cosines[row], row});
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    if (assignment[i] >= 0) matches.push_back({cosines[i], i});
  }
  const auto before = [](const auto& one, const auto& other) {
    return comes_first(one.cosine, one.row, other.cosine, other.row);
  };
  const std::size_t kept = std::min(static_cast<std::size_t>(top_k), matches.size());
  std::partial_sort(matches.begin(), matches.begin() + static_cast<std::ptrdiff_t>(kept),
                    matches.end(), before);
  matches.resize(kept);
}

// The mean of the `top_k` matches that were selected.
template <class T>
T mean_of_selected(const MatchingWorkspace<T>& workspace, std::int64_t top_k) {
  T sum{0};
  for (const auto& match : workspace.matches) sum += match.cosine;
  return sum / static_cast<T>(top_k);
}

// The mean cosine of the `top_k` most similar matches.
template <class T>
T mean_of_matches(MatchingWorkspace<T>& workspace, const T* cosines, const std::int64_t* assignment,
                  std::int64_t rows, std::int64_t top_k) {
  if (top_k == 1) {
    const std::int64_t row = most_similar_row(cosines, assignment, rows);
    return row < 0 ? T{0} : cosines[row];
  }
  select_matches(workspace, cosines, assignment, rows, top_k);
  return mean_of_selected(workspace, top_k);
}

// Features [positions, channels] of one image, contiguous, and the inverse of their norms.
template <class T>
struct Features {
  const T* values;
  const T* inverse_norms;
  std::int64_t channels;

  const T* at(std::int64_t i) const { return values + i * channels; }
};

// 1 / max(|x|, eps) of each row of x [rows, channels]; 0 for a zero vector.
template <int kBytes, class T>
LWFM_INLINE void inverse_norms(const T* x, std::int64_t rows, std::int64_t channels, T* inverse) {
  for (std::int64_t i = 0; i < rows; ++i) {
    inverse[i] = inverse_norm(inner_product<kBytes>(x + i * channels, x + i * channels, channels));
  }
}

// Writes the cosine of every matched row, 0 for a row without a match.
template <int kBytes, class T>
LWFM_INLINE void matched_cosines(const Features<T>& support, const Features<T>& query,
                                 const std::int64_t* assignment, std::int64_t rows, T* cosines) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t j = assignment[i];
    cosines[i] = j < 0 ? T{0}
                       : inner_product<kBytes>(support.at(i), query.at(j), support.channels) *
                             (support.inverse_norms[i] * query.inverse_norms[j]);
  }
}

// What one pair contributes to the gradient of the features of one of its images.
template <class T>
struct FeatureGradient {
  T* values;  // [positions, channels]
  T* along;   // [positions]: the multiples of the features themselves that are to be taken off
};

// Adds the contribution of a pair through its selected matches to the gradient of `own`, one side
// of it; `other` is the other.
template <int kBytes, class T>
LWFM_INLINE void matched_cosines_backward(const MatchingWorkspace<T>& workspace,
                                          bool own_is_support, const Features<T>& own,
                                          const Features<T>& other, const std::int64_t* assignment,
                                          std::int64_t top_k, T share,
                                          const FeatureGradient<T>& to) {
  for (std::int64_t k = 0; k < top_k; ++k) {
    const auto& match = workspace.matches[static_cast<std::size_t>(k)];
    const std::int64_t column = assignment[match.row];
    const std::int64_t i = own_is_support ? match.row : column;
    const std::int64_t j = own_is_support ? column : match.row;
    const T inverse = own.inverse_norms[i];
    add_multiple<kBytes>(other.at(j), share * inverse * other.inverse_norms[j], own.channels,
                         to.values + i * own.channels);
    // A norm below the smallest counts as that one, whatever it is.
    if (inverse < static_cast<T>(1.0 / kCosineEps)) {
      to.along[i] += share * match.cosine * inverse * inverse;
    }
  }
}

// Takes off what the norms contribute, once all pairs of an image have been added.
template <int kBytes, class T>
LWFM_INLINE void finish_gradient(const Features<T>& own, std::int64_t rows,
                                 const FeatureGradient<T>& to) {
  for (std::int64_t i = 0; i < rows; ++i) {
    if (to.along[i] != T{0}) {
      add_multiple<kBytes>(own.at(i), -to.along[i], own.channels, to.values + i * own.channels);
    }
  }
}

}  // namespace lwfm
