// The bottleneck assignment problem, exactly: the largest chosen cost is as small as possible
// (maximizing: the smallest as large as possible).
//
// A threshold grows while augmenting paths of pairs within it are searched: it is raised, to the
// least cost of a pair that leaves the search tree, only when the tree proves that no assignment
// lies within it. Costs are only compared, so nothing is rounded. R. E. Burkard, M. Dell'Amico and
// S. Martello, "Assignment Problems", SIAM 2009, chapter 6.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "core/assignment.h"
#include "core/status_of.h"

namespace lwfm {

// Finds the smallest threshold within which all rows can be assigned; the assignment is left in the
// workspace (row_to_column).
template <class Scan, class T>
class ThresholdSearch {
 public:
  // Columns from `open` on take no part. No assignment lies within a threshold below `least`.
  ThresholdSearch(const DenseCost<T>& cost, std::int64_t open, double least, Workspace& workspace)
      : cost_(cost), workspace_(workspace), tree_(workspace), threshold_(least) {
    workspace.reserve(cost.rows, cost.columns);
    std::fill(workspace.v.begin() + open, workspace.v.end(), -kInfinity);
  }

  // Before the end: a lower bound.
  double threshold() const { return threshold_; }

  // Rows in descending order of their least cost: those that have little choice come first.
  Status solve() {
    std::vector<std::pair<double, std::int64_t>> rows;
    rows.reserve(static_cast<std::size_t>(cost_.rows));
    for (std::int64_t i = 0; i < cost_.rows; ++i) {
      workspace_.watch.count(cost_.columns);
      const double* v = workspace_.v.data();
      const double least = Scan::two_smallest(cost_.row(i), cost_.factor, v, cost_.columns).first;
      threshold_ = std::max(threshold_, least);
      rows.emplace_back(least, i);
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (const auto& [least, row] : rows) {
      if (!augment(row)) return Status::infeasible;
    }
    return Status::ok;
  }

 private:
  bool augment(std::int64_t start) {
    tree_.clear();
    std::fill(workspace_.distance.begin(), workspace_.distance.end(), kInfinity);
    double smallest = relax(start);
    std::int64_t sink = -1;
    for (std::int64_t next = 0;; ++next) {
      if (next == tree_.size()) threshold_ = std::max(threshold_, smallest);
      if (threshold_ == kInfinity) return false;
      if (smallest <= threshold_) sink = collect();
      if (sink >= 0) break;
      smallest = relax(workspace_.column_to_row[tree_.column(next)]);
    }
    tree_.restore_duals(0, cost_.columns);
    tree_.flip(start, sink, [this](std::int64_t column) { return workspace_.predecessor[column]; });
    return true;
  }

  double relax(std::int64_t row) {
    workspace_.watch.count(cost_.columns);
    return Scan::relax(cost_.row(row), cost_.factor, workspace_.v.data(), 0.0,
                       static_cast<double>(row), workspace_.distance.data(),
                       workspace_.predecessor.data(), workspace_.nearest.data(), cost_.columns);
  }

  // Takes the columns within the threshold into the tree, in index order; returns the first free
  // one, or -1.
  std::int64_t collect() {
    const double* distance = workspace_.distance.data();
    const double* nearest = workspace_.nearest.data();
    for (std::int64_t j = Scan::next_within(distance, nearest, threshold_, 0, cost_.columns);
         j < cost_.columns;
         j = Scan::next_within(distance, nearest, threshold_, j, cost_.columns)) {
      if (workspace_.column_to_row[j] < 0) return j;
      tree_.add(j, workspace_.v[j], 0.0);
      tree_.hide(j);
    }
    return -1;
  }

  const DenseCost<T>& cost_;
  Workspace& workspace_;
  SearchTree tree_;
  double threshold_;
};

// A lower bound on the threshold from the columns of a square, after a look at every entry.
template <class Scan, class T>
Status read_entries(DenseCost<T> cost, Workspace& workspace, double& least) {
  workspace.reserve(cost.rows, cost.columns);
  const double factor = cost.factor;
  const Status status = reduce_columns<Scan>(cost, workspace, nullptr);
  const bool scaled = cost.factor != factor;
  if (status == Status::ok && cost.rows == cost.columns && !scaled) {
    least = *std::max_element(workspace.v.begin(), workspace.v.end());
  }
  return status;
}

// Takes the column of each row.
using UseColumns = std::function<void(const std::int64_t*)>;

// Solves a problem of 1 <= rows <= columns and calls use(row_to_column). `bound` is written if the
// search is interrupted.
template <class Scan, class T>
Status solve_bottleneck(const DenseCost<T>& problem, Workspace& workspace, double& bound,
                        const UseColumns& use) {
  std::vector<T> memory;
  const DenseCost<T> cost = with_whole_vectors(problem, memory);
  double least = -kInfinity;
  Status status = read_entries<Scan>(cost, workspace, least);
  if (status != Status::ok) return status;
  ThresholdSearch<Scan, T> search(cost, problem.columns, least, workspace);
  try {
    status = search.solve();
  } catch (const Interrupted&) {
    bound = search.threshold();
    throw;
  }
  if (status == Status::ok) use(workspace.row_to_column.data());
  return status;
}

// The lexicographic refinement, on a square of float64: of all assignments, one whose costs in
// descending order come first. Level by level: the smallest threshold; the fewest pairs that reach
// it, by an assignment problem of zeros and ones; and from then on only pairs that its duals show
// in such an assignment. Pairs that reached a threshold count as lowest after it. A level takes the
// time of two assignments, and there are as many as different costs in the answer.
template <class Scan>
class LexicographicSearch {
 public:
  // kSettled: the pairs of completing rows and of earlier levels.
  static constexpr double kSettled = std::numeric_limits<double>::lowest();

  // costs [size, size], which is overwritten; +inf forbids a pair.
  LexicographicSearch(std::vector<double> costs, std::int64_t size, Workspace& workspace)
      : costs_(std::move(costs)), size_(size), workspace_(workspace) {}

  // Finds the column of each row. After an interruption `bound` holds what it held after the first
  // level.
  Status solve(const Options& options, std::vector<std::int64_t>& columns, double& bound) {
    columns.resize(static_cast<std::size_t>(size_));
    const DenseCost<double> cost{costs_.data(), size_, size_, size_, 1.0};
    for (bool first = true;; first = false) {
      double threshold = -kInfinity, unused = -kInfinity;
      const Status status = solve_bottleneck<Scan>(
          cost, workspace_, first ? bound : unused, [&](const std::int64_t* column) {
            std::copy_n(column, size_, columns.begin());
            for (std::int64_t i = 0; i < size_; ++i) {
              threshold = std::max(threshold, cost.at(i, columns[static_cast<std::size_t>(i)]));
            }
          });
      if (status != Status::ok) return status;
      if (first) bound = threshold;
      if (threshold == kSettled) return Status::ok;
      const Status counted = settle(threshold, options);
      if (counted != Status::ok) return counted;
    }
  }

 private:
  // Keeps the pairs of assignments in which the fewest reach the threshold.
  Status settle(double threshold, const Options& options) {
    reaches_.resize(costs_.size());
    for (std::size_t k = 0; k < costs_.size(); ++k) {
      reaches_[k] = costs_[k] < threshold ? 0.0F : costs_[k] == threshold ? 1.0F : kForbidden;
    }
    const auto size = static_cast<std::size_t>(size_);
    std::vector<std::int64_t> columns(size);
    std::vector<double> u(size), v(size);
    Options count;
    count.interruption = options.interruption;
    const CostMatrix<float> cost{reaches_.data(), size_, size_, size_, 1};
    const Status status =
        lwfm::solve(cost, count, workspace_, columns.data(), {u.data(), v.data()});
    if (status != Status::ok) return status;
    for (std::size_t i = 0; i < size; ++i) {
      workspace_.watch.count(size_);
      double* row = costs_.data() + i * size;
      const float* reaches = reaches_.data() + i * size;
      for (std::size_t j = 0; j < size; ++j) {
        const bool tight = static_cast<double>(reaches[j]) - v[j] == u[i];  // small integers: exact
        row[j] = !tight ? kInfinity : reaches[j] == 1.0F ? kSettled : row[j];
      }
    }
    return Status::ok;
  }

  static constexpr float kForbidden = std::numeric_limits<float>::infinity();

  std::vector<double> costs_;
  std::int64_t size_;
  Workspace& workspace_;
  std::vector<float> reaches_;  // 0: below the threshold, 1: equal to it
};

// As solve_bottleneck, refined. Rows of the lowest cost complete a rectangle to a square.
template <class Scan, class T>
Status solve_lexicographic(const DenseCost<T>& problem, const Options& options,
                           Workspace& workspace, double& bound, const UseColumns& use) {
  const std::int64_t size = problem.columns;
  std::vector<double> costs(static_cast<std::size_t>(size) * static_cast<std::size_t>(size),
                            LexicographicSearch<Scan>::kSettled);
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    for (std::int64_t j = 0; j < size; ++j)
      costs[static_cast<std::size_t>(i * size + j)] = problem.at(i, j);
    workspace.watch.count(size);
  }
  std::vector<std::int64_t> columns;
  LexicographicSearch<Scan> search(std::move(costs), size, workspace);
  const Status status = search.solve(options, columns, bound);
  if (status == Status::ok) use(columns.data());
  return status;
}

struct BottleneckOptions {
  bool maximize = false;
  bool lexicographic = false;
  Interruption* interruption = nullptr;
};

// The largest cost of an assignment (maximizing: the smallest); without pairs -inf (+inf).
template <class T>
double largest_cost(const CostMatrix<T>& cost, bool maximize, const std::int64_t* assignment) {
  bool any = false;
  T largest{};
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    if (assignment[i] < 0) continue;
    const T entry = cost.at(i, assignment[i]);
    if (!any || (maximize ? entry < largest : entry > largest)) largest = entry;
    any = true;
  }
  if (!any) return maximize ? kInfinity : -kInfinity;
  return static_cast<double>(largest);
}

// Writes assignment [rows]: the column of each row, -1 for a row without one. After an interruption
// `bound` is what is known: no assignment has a smaller (larger) largest (smallest) cost.
template <class T>
Status solve_bottleneck(const CostMatrix<T>& cost, const BottleneckOptions& options,
                        Workspace& workspace, std::int64_t* assignment, double& bound,
                        SimdLevel level = simd_level()) noexcept {
  std::fill_n(assignment, cost.rows, std::int64_t{-1});
  bound = options.maximize ? kInfinity : -kInfinity;
  workspace.watch.begin(options.interruption);
  Options inner;
  inner.interruption = options.interruption;
  return status_of<Status>([&] {
    workspace.watch.count(cost.rows * cost.columns);
    const auto problem = prepare(cost, options.maximize, workspace);
    if (problem.cost.rows == 0) return Status::ok;
    double threshold = -kInfinity;
    const auto use = [&](const std::int64_t* columns) {
      write_answer(problem, Answer<std::int64_t>{columns, nullptr}, assignment, {});
    };
    const auto solve_with = [&](auto scan) {
      using Scan = decltype(scan);
      if (!options.lexicographic) {
        return solve_bottleneck<Scan>(problem.cost, workspace, threshold, use);
      }
      return solve_lexicographic<Scan>(problem.cost, inner, workspace, threshold, use);
    };
    Status status = Status::interrupted;
    try {
#if LWFM_X86
      status = level == SimdLevel::avx512 ? solve_with(avx512::Scan{})
               : level == SimdLevel::avx2 ? solve_with(avx2::Scan{})
                                          : solve_with(portable::Scan{});
#else
      (void)level;
      status = solve_with(portable::Scan{});
#endif
    } catch (const Interrupted&) {
    }
    if (status == Status::interrupted && std::isfinite(threshold)) {
      bound = threshold / problem.cost.factor + problem.row_offset;
    }
    return status;
  });
}

}  // namespace lwfm
