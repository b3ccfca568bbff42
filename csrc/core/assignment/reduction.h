// The reductions of the Jonker-Volgenant algorithm: dual variables and a partial assignment of
// tight pairs, before any shortest path is searched.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/levels.h"
#include "core/assignment/limits.h"
#include "core/assignment/status.h"
#include "core/assignment/workspace.h"

namespace lwfm {

constexpr std::int64_t kTies = 3;            // tight columns per row that make a tied problem
constexpr std::int64_t kReductionSteps = 3;  // per free row and pass, on average

// Looks at every entry. In a square problem v[j] becomes the smallest entry of column j, or the
// caller's guess; in a rectangle, where some columns stay free, the duals of free columns must be
// zero, so every v starts at zero.
template <class Scan, class T>
Status reduce_columns(DenseCost<T>& cost, Workspace& workspace, const double* warm_v) {
  double* v = workspace.v.data();
  const bool column_minima = cost.rows == cost.columns && warm_v == nullptr;
  EntryCheck entries;
  if (column_minima) std::fill_n(v, cost.columns, kInfinity);
  RowWatch watch(workspace.watch, cost.columns);
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    if (column_minima) {
      Scan::template read_row<true>(cost.row(i), cost.factor, v, entries, cost.columns);
    } else {
      Scan::template read_row<false>(cost.row(i), cost.factor, v, entries, cost.columns);
    }
    watch.count(i);
  }
  if (entries.invalid) return Status::invalid_entry;
  const double shrink = entries.huge ? kShrink : 1.0;
  if (warm_v != nullptr) {
    // A guess larger than any cost says nothing, and differences with it could overflow.
    const double sign = cost.factor * shrink;
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      v[j] = std::fabs(warm_v[j]) < kLargest ? sign * warm_v[j] : 0.0;
    }
  } else {
    std::for_each(v, v + cost.columns, [&](double& x) { x *= shrink; });
  }
  cost.factor *= shrink;
  workspace.has_duals = true;
  const bool forbidden = std::any_of(v, v + cost.columns, [](double x) { return x == kInfinity; });
  return forbidden ? Status::infeasible : Status::ok;
}

// Every row is free.
template <class T>
void list_all_rows(const DenseCost<T>& cost, Workspace& workspace) {
  workspace.free_rows.resize(static_cast<std::size_t>(cost.rows));
  std::iota(workspace.free_rows.begin(), workspace.free_rows.end(), std::int64_t{0});
}

inline void assign(Workspace& workspace, std::int64_t row, std::int64_t column) {
  workspace.row_to_column[static_cast<std::size_t>(row)] = column;
  workspace.column_to_row[static_cast<std::size_t>(column)] = row;
}

// Whether rows of a square problem have several tight columns each, by a sample; without ties they
// have one on average.
template <class Scan, class T>
bool has_ties(const DenseCost<T>& cost, Workspace& workspace) {
  constexpr std::int64_t kSample = 8;
  std::int64_t tight = 0;
  for (std::int64_t k = 0; k < kSample; ++k) {
    tight += Scan::count_tight(cost.row(k * cost.rows / kSample), cost.factor, workspace.v.data(),
                               cost.columns);
  }
  return tight >= kTies * kSample;
}

// Gives each row in turn its first free tight column, and lists the rows that have none.
template <class Scan, class T>
void match_tight_rows(const DenseCost<T>& cost, Workspace& workspace) {
  double* v = workspace.distance.data();  // the duals, -inf where the column is taken
  std::copy_n(workspace.v.data(), cost.columns, v);
  RowWatch watch(workspace.watch, cost.columns);
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    const std::int64_t j = Scan::first_tight(cost.row(i), cost.factor, v, cost.columns);
    if (j >= 0) {
      assign(workspace, i, j);
      v[j] = -kInfinity;
    } else {
      workspace.free_rows.push_back(i);
    }
    watch.count(i);
  }
}

// One augmenting row reduction: the row takes its best column, whose dual drops until the second
// best is as good; `strict` tells whether the dual dropped. Returns the row that lost its column,
// -1 if none did, or the row itself, unassigned, if there was nothing to gain.
template <class Scan, class T>
std::int64_t reduce_row(const DenseCost<T>& cost, Workspace& workspace, std::int64_t row,
                        bool& strict) {
  double* v = workspace.v.data();
  const TwoSmallest best = Scan::two_smallest(cost.row(row), cost.factor, v, cost.columns);
  auto column = static_cast<std::int64_t>(best.first_index);
  strict = false;
  if (best.second == kInfinity) return row;
  const double lowered = v[column] - (best.second - best.first);
  if (lowered < v[column]) {
    v[column] = lowered;
    strict = true;
  } else {
    column = Scan::first_free(cost.row(row), cost.factor, v, workspace.column_to_row.data(),
                              best.first, cost.columns);
    if (column < 0) return row;
  }
  const std::int64_t loser = workspace.column_to_row[column];
  if (loser >= 0) workspace.row_to_column[loser] = -1;
  assign(workspace, row, column);
  return loser;
}

// Two passes of augmenting row reduction: over the free rows, then over those left. A displaced row
// is reduced at once while duals drop; the number of steps is bounded, because chains of tiny drops
// are the one place where this algorithm is known to be slow. A row whose best columns tie takes
// the first free one, so a constant matrix is solved here, by the identity.
template <class Scan, class T>
void reduce_augmenting_rows(const DenseCost<T>& cost, Workspace& workspace) {
  RowWatch watch(workspace.watch, cost.columns);
  for (int pass = 0; pass < 2; ++pass) {
    auto budget = kReductionSteps * static_cast<std::int64_t>(workspace.free_rows.size());
    workspace.displaced.clear();
    for (std::int64_t row : workspace.free_rows) {
      bool strict = true;
      while (row >= 0 && strict && budget-- > 0) {
        row = reduce_row<Scan>(cost, workspace, row, strict);
        watch.count(budget);
      }
      if (row >= 0) workspace.displaced.push_back(row);
    }
    std::swap(workspace.free_rows, workspace.displaced);
  }
}

}  // namespace lwfm
