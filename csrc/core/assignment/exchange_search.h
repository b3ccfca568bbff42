// The cheapest change of a complete assignment that takes a row off its column.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/search_tree.h"
#include "core/assignment/shortest_path.h"
#include "core/assignment/workspace.h"

namespace lwfm {

struct Pair {
  std::int64_t row;
  std::int64_t column;
};

// Works on a complete assignment in the workspace with duals v for which its pairs are tight.
// Columns whose dual is -inf take no part. A rectangle is completed to a square by rows of zeros;
// they are all alike, so one spare row, number `rows`, stands for them: it owns every column that
// is left over. The exchange is then a cycle: a shortest path from the row back to its column.
template <class Scan, class T>
class ExchangeSearch {
 public:
  ExchangeSearch(const DenseCost<T>& cost, Workspace& workspace)
      : cost_(cost),
        workspace_(workspace),
        tree_(workspace),
        zeros_(static_cast<std::size_t>(cost.columns), T{0}),
        is_restricted_(static_cast<std::size_t>(cost.rows) + 1, 0) {}

  // Forbids these pairs, and no others, from now on.
  void forbid(const std::vector<Pair>& pairs) {
    for (const Pair& pair : forbidden_) is_restricted_[static_cast<std::size_t>(pair.row)] = 0;
    forbidden_ = pairs;
    for (const Pair& pair : forbidden_) is_restricted_[static_cast<std::size_t>(pair.row)] = 1;
  }

  // A lower bound on what it costs to take a row off its column, +inf where that is impossible: how
  // far a search gets that scans only so many rows.
  double least_cost(std::int64_t row, std::int64_t scans) {
    const Pair own{row, workspace_.row_to_column[row]};
    forbidden_.push_back(own);
    is_restricted_[static_cast<std::size_t>(row)] += 1;
    const double least = guarded([&] { return search(row, kInfinity, scans); });
    tree_.restore_duals(0, cost_.columns);
    is_restricted_[static_cast<std::size_t>(row)] -= 1;
    forbidden_.pop_back();
    return least;
  }

  // Takes a row off its column, which must be forbidden to it, at the least cost, and moves the
  // duals so that every pair is tight again. Returns that cost if it is at most `limit`; else
  // nothing changes, and the result is a lower bound above the limit, +inf where it is impossible.
  double exchange(std::int64_t row, double limit) {
    const double least =
        guarded([&] { return search(row, limit, std::numeric_limits<std::int64_t>::max()); });
    if (least > limit || least == kInfinity) {
      tree_.restore_duals(0, cost_.columns);
      return least;
    }
    tree_.move_duals(reached_, 0, cost_.columns);
    tree_.flip(row, target_,
               [this](std::int64_t column) { return workspace_.predecessor[column]; });
    return least;
  }

 private:
  // Hides the columns forbidden to a row while it is scanned.
  class Hidden {
   public:
    Hidden(ExchangeSearch& search, std::int64_t row) : search_(search) {
      if (search.is_restricted_[static_cast<std::size_t>(row)] == 0) return;
      for (const Pair& pair : search.forbidden_) {
        if (pair.row != row) continue;
        search.hidden_.push_back({pair.column, search.workspace_.v[pair.column]});
        search.workspace_.v[pair.column] = -kInfinity;
      }
    }
    ~Hidden() {
      for (; !search_.hidden_.empty(); search_.hidden_.pop_back()) {
        search_.workspace_.v[search_.hidden_.back().column] = search_.hidden_.back().dual;
      }
    }
    Hidden(const Hidden&) = delete;
    Hidden& operator=(const Hidden&) = delete;

   private:
    ExchangeSearch& search_;
  };

  struct HiddenColumn {
    std::int64_t column;
    double dual;
  };

  std::int64_t spare() const { return cost_.rows; }

  // Restores the duals if the work is interrupted.
  template <class Work>
  double guarded(const Work& work) {
    try {
      return work();
    } catch (const Interrupted&) {
      tree_.restore_duals(0, cost_.columns);
      throw;
    }
  }

  // Searches the shortest path from a row back to its column, until its length exceeds `limit` or
  // so many rows were scanned; returns its length, or how long it is at least.
  double search(std::int64_t start, double limit, std::int64_t scans) {
    target_ = workspace_.row_to_column[start];
    const double own = cost_.at(start, target_) - workspace_.v[target_];
    bool spare_met = false;
    tree_.clear();
    std::fill(workspace_.distance.begin(), workspace_.distance.end(), kInfinity);
    double smallest = relax(start, 0.0);
    reached_ = std::max(smallest, own);
    for (std::int64_t next = 0;; ++next) {
      if (next == tree_.size() || smallest <= reached_) {
        reached_ = std::max(reached_, smallest);  // rounding can step back
        if (smallest == kInfinity && next == tree_.size()) return kInfinity;
        if (reached_ - own > limit || next >= scans || collect(reached_)) return reached_ - own;
      }
      const std::int64_t row = workspace_.column_to_row[tree_.column(next)];
      if (row == spare()) {
        // Columns that are left over are equally near and lead to the same columns.
        if (spare_met) next = last_of_spare(next);
        if (!spare_met) workspace_.row_to_column[spare()] = tree_.column(next);
        spare_met = true;
        smallest = relax(row, -tree_.dual(next) - tree_.distance(next));
      } else {
        smallest = relax(row, path_length(cost_, tree_, next, row));
      }
    }
  }

  // The last of the columns from the tree's k-th on that are all left over.
  std::int64_t last_of_spare(std::int64_t k) const {
    while (k + 1 < tree_.size() && workspace_.column_to_row[tree_.column(k + 1)] == spare()) ++k;
    return k;
  }

  double relax(std::int64_t row, double length) {
    workspace_.watch.count(cost_.columns);
    const Hidden hidden(*this, row);
    const T* entries = row == spare() ? zeros_.data() : cost_.row(row);
    return Scan::relax(entries, cost_.factor, workspace_.v.data(), length, static_cast<double>(row),
                       workspace_.distance.data(), workspace_.predecessor.data(),
                       workspace_.nearest.data(), cost_.columns);
  }

  // Takes the columns within reach into the tree, in index order; whether the target is among them.
  bool collect(double reached) {
    const double* distance = workspace_.distance.data();
    const double* nearest = workspace_.nearest.data();
    for (std::int64_t j = Scan::next_within(distance, nearest, reached, 0, cost_.columns);
         j < cost_.columns; j = Scan::next_within(distance, nearest, reached, j, cost_.columns)) {
      if (j == target_) return true;
      tree_.add(j, workspace_.v[j], reached);
      tree_.hide(j);
    }
    return false;
  }

  const DenseCost<T>& cost_;
  Workspace& workspace_;
  SearchTree tree_;
  std::vector<T> zeros_;
  std::vector<char> is_restricted_;  // above 0: the row has forbidden pairs
  std::vector<Pair> forbidden_;
  std::vector<HiddenColumn> hidden_;
  std::int64_t target_ = -1;  // of the last search, and the distance it reached
  double reached_ = 0.0;
};

}  // namespace lwfm
