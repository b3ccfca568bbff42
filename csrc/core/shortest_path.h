// Shortest augmenting paths with dual variables: Dijkstra's algorithm on reduced costs, one search
// for each row that the reductions left free.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cost_matrix.h"
#include "limits.h"
#include "status.h"
#include "workspace.h"

namespace lwfm {

template <class Scan, class T>
class PathSearch {
 public:
  PathSearch(const DenseCost<T>& cost, Workspace& workspace) : cost_(cost), workspace_(workspace) {}

  // Assigns a free row along the shortest alternating path to a free column and moves the duals so
  // that every assigned pair stays tight. Infeasible if no free column can be reached.
  Status augment(std::int64_t start) {
    found_ = 0;
    std::fill(workspace_.distance.begin(), workspace_.distance.end(), kInfinity);
    double smallest = relax(start, 0.0);
    double reached = smallest;
    std::int64_t sink = -1;
    for (std::int64_t next = 0;; ++next) {
      if (next == found_ || smallest <= reached) {
        // Rounding can make a path one unit in the last place shorter than its beginning.
        if (smallest > reached) reached = smallest;
        if (smallest == kInfinity && next == found_) {
          restore_duals();
          return Status::infeasible;
        }
        sink = collect(reached);
        if (sink >= 0) break;
      }
      smallest = continue_from(next);
    }
    move_duals(reached);
    flip(start, sink);
    return Status::ok;
  }

 private:
  double relax(std::int64_t row, double length) {
    return Scan::relax(cost_.row(row), cost_.factor, workspace_.v.data(), length,
                       static_cast<double>(row), workspace_.distance.data(),
                       workspace_.predecessor.data(), workspace_.nearest.data(), cost_.columns);
  }

  // Scans the row that owns the next discovered column.
  double continue_from(std::int64_t next) {
    const std::int64_t column = workspace_.scanned[next];
    const std::int64_t row = workspace_.column_to_row[column];
    const double length =
        (cost_.at(row, column) - workspace_.scanned_v[next]) - workspace_.scanned_distance[next];
    return relax(row, length);
  }

  // Takes every column at distance `reached` into the tree, in index order, and returns the first
  // free one among them (then the search is over), or -1.
  std::int64_t collect(double reached) {
    const double* distance = workspace_.distance.data();
    const double* nearest = workspace_.nearest.data();
    for (std::int64_t j = Scan::next_within(distance, nearest, reached, 0, cost_.columns);
         j < cost_.columns; j = Scan::next_within(distance, nearest, reached, j, cost_.columns)) {
      if (workspace_.column_to_row[j] < 0) return j;
      workspace_.scanned[found_] = j;
      workspace_.scanned_v[found_] = workspace_.v[j];
      workspace_.scanned_distance[found_] = reached;
      ++found_;
      workspace_.distance[j] = kInfinity;
      workspace_.v[j] = -kInfinity;
    }
    return -1;
  }

  void move_duals(double reached) {
    for (std::int64_t k = 0; k < found_; ++k) {
      workspace_.v[workspace_.scanned[k]] =
          workspace_.scanned_v[k] + (workspace_.scanned_distance[k] - reached);
    }
  }

  void restore_duals() {
    for (std::int64_t k = 0; k < found_; ++k) {
      workspace_.v[workspace_.scanned[k]] = workspace_.scanned_v[k];
    }
  }

  void flip(std::int64_t start, std::int64_t column) {
    for (std::int64_t row = -1; row != start;) {
      row = static_cast<std::int64_t>(workspace_.predecessor[column]);
      workspace_.column_to_row[column] = row;
      std::swap(column, workspace_.row_to_column[row]);
    }
  }

  const DenseCost<T>& cost_;
  Workspace& workspace_;
  std::int64_t found_ = 0;
};

}  // namespace lwfm
