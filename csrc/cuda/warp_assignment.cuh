// One warp solves an assignment problem of at most 32 columns: a lane owns a column, and the lane
// of the same number a row. Other kernels call it for problems that they have in shared memory.
//
// The algorithm is that of core/assignment/small_kernel.h, step by step in the same arithmetic, so
// that the answer is the same, ties included: duals start at the column minima, rows take free
// tight columns, and each row left over gets a shortest augmenting path.
#pragma once

#include <cstdint>

#include "core/assignment/status.h"
#include "cost_view.cuh"
#include "warp.cuh"

namespace lwfm {

// Lane i holds the column of row i, the row of column i (-1: none) and the dual of column i, for
// costs times `factor`.
struct WarpAssignment {
  Status status;
  int column_of_row;
  int row_of_column;
  double v;
  double factor;
};

template <class Cost>
class WarpSolver {
 public:
  __device__ WarpSolver(const Cost& cost, int rows, int columns)
      : cost_(cost), rows_(rows), columns_(columns), lane_(lane_index()) {}

  __device__ WarpAssignment solve() {
    Status status = start_duals();
    if (status == Status::ok) status = match_tight_rows();
    while (status == Status::ok && free_rows_ != 0) {
      const int row = lowest(free_rows_);
      free_rows_ &= free_rows_ - 1;
      status = augment(row);
    }
    return {status, column_of_row_, row_of_column_, v_, cost_.factor};
  }

 private:
  __device__ static int lowest(unsigned word) { return __ffs(static_cast<int>(word)) - 1; }

  // Lanes beyond the last column act as columns that are forbidden to every row.
  __device__ double entry(int row) const {
    return lane_ < columns_ ? cost_(row, lane_) : kInfinity;
  }

  // Looks at every entry. A square problem starts from the column minima; in a rectangle the duals
  // of free columns must be zero.
  __device__ Status start_duals() {
    EntryFlags flags;
    double smallest = column_minimum(flags);
    if (__any_sync(kAllLanes, flags.invalid)) return Status::invalid_entry;
    if (__any_sync(kAllLanes, flags.huge)) {
      cost_.factor *= kShrink;
      smallest *= kShrink;
    }
    const bool empty = lane_ < columns_ && smallest == kInfinity;
    const unsigned forbidden = __ballot_sync(kAllLanes, empty);
    v_ = rows_ < columns_ || smallest == kInfinity ? 0.0 : smallest;
    free_columns_ = kAllLanes >> (kWarp - columns_);
    return rows_ == columns_ && forbidden != 0 ? Status::infeasible : Status::ok;
  }

  __device__ double column_minimum(EntryFlags& flags) const {
    double smallest = kInfinity;
    for (int i = 0; i < rows_; ++i) {
      const double c = entry(i);
      flags.add(c);
      smallest = c < smallest ? c : smallest;
    }
    return smallest;
  }

  // Gives each row in turn its first free tight column, where it has one.
  __device__ Status match_tight_rows() {
    for (int i = 0; i < rows_; ++i) {
      const Key reduced = key_of(entry(i) - v_);
      const Key smallest = warp_min(reduced);
      if (smallest == kInfinityKey) return Status::infeasible;
      const unsigned tight = __ballot_sync(kAllLanes, reduced == smallest) & free_columns_;
      if (tight == 0) {
        free_rows_ |= 1u << i;
      } else {
        assign(i, lowest(tight));
      }
    }
    return Status::ok;
  }

  __device__ void assign(int row, int column) {
    free_columns_ ^= 1u << column;
    if (lane_ == row) column_of_row_ = column;
    if (lane_ == column) row_of_column_ = row;
  }

  // Among equally near columns the first free one, else the first.
  __device__ int nearest_column(double open, double& distance) const {
    const Key key = key_of(open);
    const Key smallest = warp_min(key);
    const unsigned nearest = __ballot_sync(kAllLanes, key == smallest);
    distance = value_of(smallest);
    const unsigned free = nearest & free_columns_;
    return lowest(free != 0 ? free : nearest);
  }

  // One shortest augmenting path from a free row. `open` is the distance of the lane's column, +inf
  // inside the tree.
  __device__ Status augment(int start) {
    double open = entry(start) - v_, reached = kInfinity, distance;
    int predecessor = start;
    bool in_tree = false;
    int column = nearest_column(open, distance);
    while ((free_columns_ >> column & 1) == 0) {
      const int i = __shfl_sync(kAllLanes, row_of_column_, column);
      const double v = __shfl_sync(kAllLanes, v_, column);
      const double length = (cost_(i, column) - v) - distance;
      if (lane_ == column) {
        reached = distance;
        open = kInfinity;
        in_tree = true;
      }
      const double candidate = (entry(i) - v_) - length;
      if (!in_tree && candidate < open) {
        predecessor = i;
        open = candidate;
      }
      column = nearest_column(open, distance);
      if (distance == kInfinity) return Status::infeasible;
    }
    if (reached < distance) v_ += reached - distance;
    flip(start, column, predecessor);
    return Status::ok;
  }

  __device__ void flip(int start, int column, int predecessor) {
    free_columns_ ^= 1u << column;
    for (int i = -1; i != start;) {
      i = __shfl_sync(kAllLanes, predecessor, column);
      if (lane_ == column) row_of_column_ = i;
      const int next = __shfl_sync(kAllLanes, column_of_row_, i);
      if (lane_ == i) column_of_row_ = column;
      column = next;
    }
  }

  Cost cost_;
  const int rows_, columns_, lane_;
  double v_ = 0.0;
  int column_of_row_ = -1, row_of_column_ = -1;
  unsigned free_rows_ = 0, free_columns_ = 0;
};

// Solves a problem of 1 <= rows <= columns <= 32, to be called by all lanes of a warp with the same
// arguments. Cost has a double `factor` and `double operator()(row, column)`, as CostView; it is
// read where row < rows and column < columns. Of shared memory that other lanes have written, after
// __syncwarp().
template <class Cost>
__device__ WarpAssignment solve_in_warp(const Cost& cost, int rows, int columns) {
  return WarpSolver<Cost>(cost, rows, columns).solve();
}

}  // namespace lwfm
