// Warm start: initial duals and pairs from the answer to a similar problem.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/reduction.h"
#include "core/assignment/workspace.h"

namespace lwfm {

// Smaller problems are solved in less time than an earlier assignment takes to adopt.
constexpr std::int64_t kWarmColumns = 256;
constexpr std::int64_t kWarmScans = 4;  // per row, on average

// The column that an earlier answer gave to a row, if it is one and the pair is allowed; else -1.
template <class T>
std::int64_t earlier_column(const DenseCost<T>& cost, const std::int64_t* columns,
                            std::int64_t row) {
  const std::int64_t j = columns[row];
  return j >= 0 && j < cost.columns && cost.at(row, j) < kInfinity ? j : -1;
}

// Lowers column duals until every earlier pair is as good as any other in its row, and returns
// whether that was reached: Bellman and Ford's shortest paths over the columns, scanning a row
// again only when the dual of its column has changed. If the pairs are no longer optimal this does
// not terminate, so the number of scans is bounded.
template <class Scan, class T>
bool lower_duals(const DenseCost<T>& cost, Workspace& workspace, const std::int64_t* columns) {
  double* v = workspace.v.data();
  double* scanned_with = workspace.scanned_v.data();  // the dual that a row was last scanned with
  std::fill_n(scanned_with, cost.rows, kInfinity);
  std::int64_t budget = kWarmScans * cost.rows;
  for (bool lowered = true; lowered;) {
    lowered = false;
    for (std::int64_t i = 0; i < cost.rows; ++i) {
      const std::int64_t j = earlier_column(cost, columns, i);
      if (j < 0 || v[j] == scanned_with[i]) continue;
      if (budget-- == 0) return false;
      const double dual = v[j];
      scanned_with[i] = dual;
      v[j] = -kInfinity;  // a pair says nothing about itself, whatever the rounding
      lowered |=
          Scan::lower_to_row(cost.row(i), cost.factor, dual - cost.at(i, j), v, cost.columns);
      v[j] = dual;
      workspace.watch.count(cost.columns);
    }
  }
  return true;
}

// Makes the earlier pairs that are tight, up to rounding, and lists the other rows as free. Where
// fewer than half are, the duals are worse than before, and are restored.
template <class Scan, class T>
void adopt_columns(const DenseCost<T>& cost, Workspace& workspace, const std::int64_t* columns) {
  constexpr double kRounding = 4 * std::numeric_limits<double>::epsilon();
  double* v = workspace.v.data();
  std::copy_n(v, cost.columns, workspace.distance.data());
  const bool all_tight = lower_duals<Scan>(cost, workspace, columns);
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    const std::int64_t j = earlier_column(cost, columns, i);
    workspace.watch.count(cost.columns);
    bool tight = j >= 0 && workspace.column_to_row[static_cast<std::size_t>(j)] < 0;
    if (tight && !all_tight) {
      const double entry = cost.at(i, j);
      const double slack =
          (entry - v[j]) - Scan::two_smallest(cost.row(i), cost.factor, v, cost.columns).first;
      tight = slack <= kRounding * (std::fabs(entry) + std::fabs(v[j]));
    }
    if (tight) {
      assign(workspace, i, j);
    } else {
      workspace.free_rows.push_back(i);
    }
  }
  if (2 * static_cast<std::int64_t>(workspace.free_rows.size()) <= cost.rows) return;
  std::copy_n(workspace.distance.data(), cost.columns, v);
  std::fill_n(workspace.row_to_column.begin(), cost.rows, std::int64_t{-1});
  std::fill_n(workspace.column_to_row.begin(), cost.columns, std::int64_t{-1});
  list_all_rows(cost, workspace);
}

}  // namespace lwfm
