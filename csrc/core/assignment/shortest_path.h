// Shortest augmenting paths with dual variables: Dijkstra's algorithm on reduced costs, one search
// for each row that the reductions left free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/search_tree.h"
#include "core/assignment/status.h"
#include "core/assignment/workspace.h"

namespace lwfm {

// How much longer the paths through the row of the tree's k-th column are than the row's reduced
// costs, negated.
template <class T>
double path_length(const DenseCost<T>& cost, const SearchTree& tree, std::int64_t k,
                   std::int64_t row) {
  return (cost.at(row, tree.column(k)) - tree.dual(k)) - tree.distance(k);
}

template <class Scan, class T>
class PathSearch {
 public:
  PathSearch(const DenseCost<T>& cost, Workspace& workspace)
      : cost_(cost), workspace_(workspace), tree_(workspace) {}

  // Assigns a free row along the shortest alternating path to a free column and moves the duals so
  // that every assigned pair stays tight. Infeasible if no free column can be reached.
  Status augment(std::int64_t start) {
    try {
      return search(start);
    } catch (const Interrupted&) {
      tree_.restore_duals(0, cost_.columns);
      throw;
    }
  }

 private:
  Status search(std::int64_t start) {
    RowWatch watch(workspace_.watch, cost_.columns);
    tree_.clear();
    std::fill(workspace_.distance.begin(), workspace_.distance.end(), kInfinity);
    double smallest = relax(start, 0.0);
    double reached = smallest;
    std::int64_t sink = -1;
    for (std::int64_t next = 0;; ++next) {
      if (next == tree_.size() || smallest <= reached) {
        // Rounding can make a path one unit in the last place shorter than its beginning.
        if (smallest > reached) reached = smallest;
        if (smallest == kInfinity && next == tree_.size()) {
          tree_.restore_duals(0, cost_.columns);
          return Status::infeasible;
        }
        sink = collect(reached);
        if (sink >= 0) break;
      }
      watch.count(next);
      smallest = continue_from(next);
    }
    workspace_.watch.count(tree_.size() * cost_.columns);
    tree_.move_duals(reached, 0, cost_.columns);
    tree_.flip(start, sink, [this](std::int64_t column) { return workspace_.predecessor[column]; });
    return Status::ok;
  }

  double relax(std::int64_t row, double length) {
    return Scan::relax(cost_.row(row), cost_.factor, workspace_.v.data(), length,
                       static_cast<double>(row), workspace_.distance.data(),
                       workspace_.predecessor.data(), workspace_.nearest.data(), cost_.columns);
  }

  // Scans the row that owns the next discovered column.
  double continue_from(std::int64_t next) {
    const std::int64_t row = workspace_.column_to_row[tree_.column(next)];
    return relax(row, path_length(cost_, tree_, next, row));
  }

  // Takes every column at distance `reached` into the tree, in index order, and returns the first
  // free one among them (then the search is over), or -1.
  std::int64_t collect(double reached) {
    const double* distance = workspace_.distance.data();
    const double* nearest = workspace_.nearest.data();
    for (std::int64_t j = Scan::next_within(distance, nearest, reached, 0, cost_.columns);
         j < cost_.columns; j = Scan::next_within(distance, nearest, reached, j, cost_.columns)) {
      if (workspace_.column_to_row[j] < 0) return j;
      tree_.add(j, workspace_.v[j], reached);
      tree_.hide(j);
    }
    return -1;
  }

  const DenseCost<T>& cost_;
  Workspace& workspace_;
  SearchTree tree_;
};

// Assigns the free rows one after another.
template <class Scan, class T>
Status augment_free_rows(const DenseCost<T>& cost, Workspace& workspace) {
  PathSearch<Scan, T> search(cost, workspace);
  for (const std::int64_t row : workspace.free_rows) {
    const Status status = search.augment(row);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

}  // namespace lwfm
