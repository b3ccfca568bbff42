// Converts the caller's cost matrix to the form that the solver reads: transposes a tall matrix,
// reads integers exactly, and applies a cost limit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "core/assignment/copy_costs.h"
#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/options.h"
#include "core/assignment/workspace.h"

namespace lwfm {

// Result of a pass over the entries: a NaN or -inf; a finite magnitude above kLargest.
struct EntryCheck {
  bool invalid = false;
  bool huge = false;
};

// A problem in the form in which it is solved, and how to convert its answer back. T is Real<.>
// of the caller's type.
template <class T>
struct Prepared {
  DenseCost<T> cost;
  bool transposed;              // the solver's rows are the caller's columns
  std::int64_t paired_columns;  // columns from here on mean that a row stays unmatched
  // The caller's duals are unit / factor times the solver's, plus these.
  double unit;
  double row_offset;
  double column_offset;
};

// The matrix with its shorter side as rows.
template <class T>
CostMatrix<T> widened(const CostMatrix<T>& cost) {
  if (cost.rows <= cost.columns) return cost;
  return {cost.data, cost.columns, cost.rows, cost.column_stride, cost.row_stride};
}

// The costs with at least as many columns as the widest vector, as the scans of rows need; a copy
// in `memory` where there are fewer. The caller keeps the search out of the added columns, whose
// entries are zero.
template <class T>
DenseCost<T> with_whole_vectors(const DenseCost<T>& cost, std::vector<T>& memory) {
  constexpr std::int64_t kWidth = 8;
  if (cost.columns >= kWidth) return cost;
  memory.assign(static_cast<std::size_t>(cost.rows * kWidth), T{0});
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    std::copy_n(cost.row(i), cost.columns, memory.data() + i * kWidth);
  }
  return {memory.data(), cost.rows, kWidth, kWidth, cost.factor};
}

// Returns the solver's view of `cost`; it points into the caller's memory where that has the right
// form and into `workspace` otherwise.
template <class T>
Prepared<Real<T>> prepare(const CostMatrix<T>& cost, bool maximize, Workspace& workspace) {
  const double factor = maximize ? -1.0 : 1.0;
  const CostMatrix<T> wide = widened(cost);
  const bool transposed = cost.rows > cost.columns;
  if constexpr (std::is_floating_point_v<T>) {
    if (wide.column_stride == 1) {
      const DenseCost<T> view{wide.data, wide.rows, wide.columns, wide.row_stride, factor};
      return {view, transposed, wide.columns, 1.0, 0.0, 0.0};
    }
  }
  Real<T>* const copy = workspace.entries(Real<T>{}).reserve(wide.rows, wide.columns);
  double offset = 0.0;
  if constexpr (std::is_integral_v<T>) {
    offset = rewrite_integers(wide, copy, workspace.watch);
  } else {
    copy_by_row(wide, copy, workspace.watch);
  }
  const DenseCost<Real<T>> view{copy, wide.rows, wide.columns, wide.columns, factor};
  return {view, transposed, wide.columns, 1.0, offset, 0.0};
}

// By how much an entry exceeds the cost limit, at half scale, where it cannot overflow; of 64-bit
// integers exactly as long as that is below 2^53, however large they are.
template <class T>
class Excess {
 public:
  Excess(double limit, double half) : half_(half), limit_(half * limit) {
    if constexpr (kWide) {
      near_ = std::fabs(limit) < 0x1p100;
      if (!near_) return;
      whole_ = static_cast<__int128>(std::floor(limit));
      limit_ = half * (limit - std::floor(limit));
    }
  }

  double operator()(T entry) const {
    if constexpr (kWide) {
      if (near_) {
        const __int128 exact = entry - whole_;
        const auto narrow = static_cast<std::int64_t>(exact);  // converted much faster
        const double excess =
            narrow == exact ? static_cast<double>(narrow) : static_cast<double>(exact);
        return half_ * excess - limit_;
      }
    }
    return half_ * static_cast<double>(entry) - limit_;
  }

 private:
  static constexpr bool kWide = std::is_integral_v<T> && sizeof(T) == 8;

  double half_;
  double limit_;  // less its whole part if near_
  bool near_ = false;
  __int128 whole_ = 0;
};

// The same with a finite cost limit: pairs cost what they exceed the limit by, pairs that do not
// pay are forbidden, and each row gets a column of its own, at no cost, for staying unmatched.
template <class T>
Prepared<double> prepare_limited(const CostMatrix<T>& cost, const Options& options,
                                 Workspace& workspace) {
  const double half = options.maximize ? -0.5 : 0.5;
  const Excess<T> excess_of(options.cost_limit, half);
  const CostMatrix<T> wide = widened(cost);
  const std::int64_t length = wide.rows + wide.columns;
  double* const copy = workspace.entries_double.reserve(wide.rows, length);
  rewrite(wide, copy, length, workspace.watch, [&](T entry) {
    const double excess = excess_of(entry);
    return excess >= 0.0 ? kInfinity : excess;
  });
  for (std::int64_t i = 0; i < wide.rows; ++i) {
    double* const unmatched = copy + i * length + wide.columns;
    std::fill_n(unmatched, wide.rows, kInfinity);
    unmatched[i] = 0.0;
    workspace.watch.count(wide.rows);
  }
  const double share = 0.5 * options.cost_limit;
  return {{copy, wide.rows, length, length, 1.0},
          cost.rows > cost.columns,
          wide.columns,
          1.0 / half,
          share,
          share};
}

}  // namespace lwfm
