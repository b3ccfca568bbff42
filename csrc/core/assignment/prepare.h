// From the caller's cost matrix to the solver's: checks every entry, turns a tall matrix on its
// side, reads integers exactly, and scales float64 costs whose sums would overflow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/assignment/copy_costs.h"
#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/options.h"
#include "core/assignment/workspace.h"

namespace lwfm {

// What a pass over the entries found: a NaN or -inf; a finite magnitude above kLargest.
struct EntryCheck {
  bool invalid = false;
  bool huge = false;
};

// A problem in the form in which it is solved, and what was done to bring it there. T is Real<.>
// of the caller's type.
template <class T>
struct Prepared {
  DenseCost<T> cost;
  bool transposed;              // the solver's rows are the caller's columns
  std::int64_t paired_columns;  // columns from here on stand for leaving a row unmatched
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
  auto& copy = workspace.entries(Real<T>{});
  copy.resize(static_cast<std::size_t>(wide.rows) * static_cast<std::size_t>(wide.columns));
  double offset = 0.0;
  if constexpr (std::is_integral_v<T>) {
    offset = rewrite_integers(wide, copy.data());
  } else {
    rewrite(wide, copy.data(), wide.columns, [](T entry) { return entry; });
  }
  const DenseCost<Real<T>> view{copy.data(), wide.rows, wide.columns, wide.columns, factor};
  return {view, transposed, wide.columns, 1.0, offset, 0.0};
}

// The same with a finite cost limit: pairs cost what they exceed the limit by, pairs that do not
// pay are forbidden, and each row gets a column of its own, at no cost, for staying unmatched. The
// difference is taken at half scale, where it cannot overflow.
template <class T>
Prepared<double> prepare_limited(const CostMatrix<T>& cost, const Options& options,
                                 Workspace& workspace) {
  const double half = options.maximize ? -0.5 : 0.5;
  const double limit = half * options.cost_limit;
  const CostMatrix<T> wide = widened(cost);
  const std::int64_t length = wide.rows + wide.columns;
  auto& copy = workspace.entries_double;
  copy.assign(static_cast<std::size_t>(wide.rows) * static_cast<std::size_t>(length), kInfinity);
  rewrite(wide, copy.data(), length, [&](T entry) {
    const double excess = half * static_cast<double>(entry) - limit;
    return excess >= 0.0 ? kInfinity : excess;
  });
  for (std::int64_t i = 0; i < wide.rows; ++i) {
    copy[static_cast<std::size_t>(i * length + wide.columns + i)] = 0.0;
  }
  const double share = 0.5 * options.cost_limit;
  return {{copy.data(), wide.rows, length, length, 1.0},
          cost.rows > cost.columns,
          wide.columns,
          1.0 / half,
          share,
          share};
}

}  // namespace lwfm
