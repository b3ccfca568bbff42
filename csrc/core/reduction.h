// The cheap beginning of the Jonker-Volgenant algorithm: dual variables and a partial assignment
// of tight pairs, before any shortest path is searched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cost_matrix.h"
#include "row_scan.h"
#include "status.h"
#include "workspace.h"

namespace lwfm {

// Square problems only: v[j] becomes the smallest entry of column j. (In a rectangle, where some
// columns stay free, the duals of free columns must be zero, and every v starts there.)
template <class T>
Status reduce_columns(const DenseCost<T>& cost, Workspace& workspace) {
  double* v = workspace.v.data();
  std::fill_n(v, cost.columns, kInfinity);
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    const T* row = cost.row(i);
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const double entry = cost.factor * static_cast<double>(row[j]);
      v[j] = entry < v[j] ? entry : v[j];
    }
  }
  const bool forbidden = std::any_of(v, v + cost.columns, [](double x) { return x == kInfinity; });
  return forbidden ? Status::infeasible : Status::ok;
}

inline void assign(Workspace& workspace, std::int64_t row, std::int64_t column) {
  workspace.row_to_column[static_cast<std::size_t>(row)] = column;
  workspace.column_to_row[static_cast<std::size_t>(column)] = row;
}

// Gives each row in turn its first free tight column, where it has one; the others are left in
// free_rows. A constant matrix is solved here, by the identity.
template <class T>
Status match_tight_rows(const DenseCost<T>& cost, Workspace& workspace) {
  const double* v = workspace.v.data();
  const std::int64_t* column_to_row = workspace.column_to_row.data();
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    const T* row = cost.row(i);
    double smallest = kInfinity;
    std::int64_t column = -1;  // the first free column among the smallest
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const double reduced = cost.factor * static_cast<double>(row[j]) - v[j];
      if (reduced < smallest) {
        smallest = reduced;
        column = -1;
      }
      if (reduced == smallest && column < 0 && column_to_row[j] < 0) column = j;
    }
    if (smallest == kInfinity) return Status::infeasible;
    if (column >= 0) {
      assign(workspace, i, column);
    } else {
      workspace.free_rows.push_back(i);
    }
  }
  return Status::ok;
}

// One augmenting row reduction: the row takes its best column, whose dual drops until the second
// best is as good. Returns the row that lost its column, or -1; `strict` tells whether the dual
// dropped. A row with no second choice is handed back untouched.
template <class T>
std::int64_t reduce_row(const DenseCost<T>& cost, Workspace& workspace, std::int64_t row,
                        bool& strict) {
  const TwoSmallest best =
      two_smallest(cost.row(row), cost.factor, workspace.v.data(), cost.columns);
  strict = false;
  if (best.second == kInfinity) return row;
  std::int64_t column = best.first_index;
  const auto owner = [&](std::int64_t j) {
    return workspace.column_to_row[static_cast<std::size_t>(j)];
  };
  double& dual = workspace.v[static_cast<std::size_t>(column)];
  const double lowered = dual - (best.second - best.first);
  if (lowered < dual) {
    dual = lowered;
    strict = true;
  } else if (owner(column) >= 0 && owner(best.second_index) < 0) {
    column = best.second_index;
  }
  const std::int64_t loser = owner(column);
  if (loser >= 0 && !strict) return row;
  if (loser >= 0) workspace.row_to_column[static_cast<std::size_t>(loser)] = -1;
  assign(workspace, row, column);
  return loser;
}

// Two passes of augmenting row reduction over the free rows. A displaced row goes on at once while
// duals drop; the number of steps is bounded, because chains of tiny drops are the one place where
// this algorithm is known to be slow.
template <class T>
void reduce_augmenting_rows(const DenseCost<T>& cost, Workspace& workspace) {
  for (int pass = 0; pass < 2 && !workspace.free_rows.empty(); ++pass) {
    std::int64_t budget = 2 * static_cast<std::int64_t>(workspace.free_rows.size());
    workspace.displaced.clear();
    for (std::int64_t row : workspace.free_rows) {
      bool strict = true;
      while (row >= 0 && strict && budget-- > 0) row = reduce_row(cost, workspace, row, strict);
      if (row >= 0) workspace.displaced.push_back(row);
    }
    std::swap(workspace.free_rows, workspace.displaced);
  }
}

}  // namespace lwfm
