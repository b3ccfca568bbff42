// Assignment when most pairs are forbidden: the algorithm of assignment.h on a matrix in compressed
// rows, with a heap in place of the scans over all columns.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "core/assignment/limits.h"
#include "core/assignment/status.h"
#include "core/interruption.h"

namespace lwfm {

// Row i has the pairs start[i] .. start[i + 1] - 1: column[k] at value[k]. At most one entry for a
// pair; rows <= columns; every column is in 0 .. columns - 1; values are finite and below kLargest
// in magnitude.
struct SparseCost {
  std::int64_t rows;
  std::int64_t columns;
  const std::int64_t* start;
  const std::int64_t* column;
  const double* value;
};

class SparseSolver {
 public:
  explicit SparseSolver(const SparseCost& cost, Interruption* interruption = nullptr)
      : cost_(cost),
        watch_(interruption),
        v_(size(cost.columns), 0.0),
        distance_(size(cost.columns), kInfinity),
        column_to_row_(size(cost.columns), -1),
        predecessor_(size(cost.columns), -1),
        predecessor_row_(size(cost.columns), -1),
        done_(size(cost.columns), 0),
        pair_of_row_(size(cost.rows), -1) {}

  // Writes the column of each row. An interruption leaves them unwritten; bound() is then what is
  // known of the total.
  Status solve(std::int64_t* row_to_column) {
    try {
      if (cost_.rows == cost_.columns) start_from_column_minima();
      for (const std::int64_t row : reduce_rows()) {
        if (!augment(row)) return Status::infeasible;
      }
    } catch (const Interrupted&) {
      return Status::interrupted;
    }
    for (std::int64_t i = 0; i < cost_.rows; ++i) row_to_column[i] = cost_.column[pair_of_row_[i]];
    return Status::ok;
  }

  // What the column duals prove: no complete assignment costs less.
  double bound() const {
    double sum = std::accumulate(v_.begin(), v_.end(), 0.0);
    for (std::int64_t i = 0; i < cost_.rows; ++i) {
      double smallest = kInfinity;
      for (std::int64_t k = cost_.start[i]; k < cost_.start[i + 1]; ++k) {
        smallest = std::min(smallest, reduced(k));
      }
      sum += smallest;
    }
    return sum;
  }

 private:
  // In order of distance, then free columns first, then by index.
  using Candidate = std::tuple<double, bool, std::int64_t>;

  struct Scanned {
    std::int64_t column;
    double distance;
  };

  static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

  double reduced(std::int64_t k) const { return cost_.value[k] - v_[cost_.column[k]]; }

  std::int64_t pair_count(std::int64_t row) const {
    return cost_.start[row + 1] - cost_.start[row];
  }

  // Only where no column may stay free: the dual of such a column must be zero.
  void start_from_column_minima() {
    std::fill(v_.begin(), v_.end(), kInfinity);
    for (std::int64_t k = 0; k < cost_.start[cost_.rows]; ++k) {
      double& v = v_[cost_.column[k]];
      v = std::min(v, cost_.value[k]);
    }
  }

  void assign(std::int64_t row, std::int64_t k) {
    pair_of_row_[row] = k;
    column_to_row_[cost_.column[k]] = row;
  }

  // Two bounded passes of augmenting row reduction; returns the rows left over.
  std::vector<std::int64_t> reduce_rows() {
    std::vector<std::int64_t> rows(size(cost_.rows)), left;
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    for (int pass = 0; pass < 2; ++pass) {
      auto budget = 3 * static_cast<std::int64_t>(rows.size());
      left.clear();
      for (std::int64_t row : rows) {
        bool strict = true;
        while (row >= 0 && strict && budget-- > 0) row = reduce_row(row, strict);
        if (row >= 0) left.push_back(row);
      }
      std::swap(rows, left);
    }
    return rows;
  }

  // The row takes its best column, whose dual drops until the second best is as good. Returns the
  // row that lost it, -1 if none did, or the row itself if there was nothing to gain.
  std::int64_t reduce_row(std::int64_t row, bool& strict) {
    watch_.count(1 + pair_count(row));
    double first = kInfinity, second = kInfinity;
    std::int64_t best = -1;
    for (std::int64_t k = cost_.start[row]; k < cost_.start[row + 1]; ++k) {
      const double cost = reduced(k);
      const bool free_tie = cost == first && column_to_row_[cost_.column[best]] >= 0 &&
                            column_to_row_[cost_.column[k]] < 0;
      if (cost < first || free_tie) {
        second = first;
        first = cost;
        best = k;
      } else if (cost < second) {
        second = cost;
      }
    }
    strict = false;
    if (best < 0 || second == kInfinity) return row;
    const std::int64_t column = cost_.column[best];
    const double lowered = v_[column] - (second - first);
    strict = lowered < v_[column];
    const std::int64_t loser = column_to_row_[column];
    if (loser >= 0 && !strict) return row;
    v_[column] = lowered;
    if (loser >= 0) pair_of_row_[loser] = -1;
    assign(row, best);
    return loser;
  }

  // Paths that are not shorter than the shortest known one to a free column are not followed.
  void relax(std::int64_t row, double length) {
    watch_.count(1 + pair_count(row));
    for (std::int64_t k = cost_.start[row]; k < cost_.start[row + 1]; ++k) {
      const std::int64_t j = cost_.column[k];
      const double candidate = reduced(k) - length;
      if (candidate >= nearest_free_ || candidate >= distance_[j] || done_[j]) continue;
      if (distance_[j] == kInfinity) touched_.push_back(j);
      distance_[j] = candidate;
      predecessor_[j] = k;
      predecessor_row_[j] = row;
      const bool assigned = column_to_row_[j] >= 0;
      if (!assigned) nearest_free_ = candidate;
      heap_.emplace_back(candidate, assigned, j);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    }
  }

  // The nearest column that is not done; -1 if there is none.
  std::int64_t take_nearest() {
    while (!heap_.empty()) {
      const auto [distance, assigned, column] = heap_.front();
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.pop_back();
      if (!done_[column] && distance == distance_[column]) return column;
    }
    return -1;
  }

  bool augment(std::int64_t start) {
    std::int64_t column = -1;
    double reached = -kInfinity;
    nearest_free_ = kInfinity;
    relax(start, 0.0);
    while ((column = take_nearest()) >= 0) {
      reached = std::max(reached, distance_[column]);  // rounding can step back
      if (column_to_row_[column] < 0) break;
      done_[column] = 1;
      scanned_.push_back({column, reached});
      const std::int64_t row = column_to_row_[column];
      relax(row, reduced(pair_of_row_[row]) - reached);
    }
    if (column >= 0) {
      for (const Scanned& s : scanned_) v_[s.column] += s.distance - reached;
      flip(start, column);
    }
    for (const std::int64_t j : touched_) {
      distance_[j] = kInfinity;
      done_[j] = 0;
    }
    touched_.clear();
    scanned_.clear();
    heap_.clear();
    return column >= 0;
  }

  void flip(std::int64_t start, std::int64_t column) {
    for (std::int64_t row = -1; row != start;) {
      row = predecessor_row_[column];
      const std::int64_t previous = pair_of_row_[row];
      assign(row, predecessor_[column]);
      if (row != start) column = cost_.column[previous];
    }
  }

  const SparseCost& cost_;
  Watch watch_;
  std::vector<double> v_, distance_;
  std::vector<std::int64_t> column_to_row_;                  // -1: free
  std::vector<std::int64_t> predecessor_, predecessor_row_;  // pair before a column, and its row
  std::vector<char> done_;
  std::vector<std::int64_t> pair_of_row_;  // index into value, -1: not assigned
  double nearest_free_ = kInfinity;        // length of the shortest path found to a free column
  std::vector<std::int64_t> touched_;
  std::vector<Scanned> scanned_;
  std::vector<Candidate> heap_;
};

}  // namespace lwfm
