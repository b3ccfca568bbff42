// The simplex method on a transport problem whose weights are integers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/assignment/limits.h"
#include "core/transport/levels.h"
#include "core/transport/spanning_tree.h"
#include "core/transport/workspace.h"

namespace lwfm {

// Leaves an optimal tree in the workspace, from `supply` and `demand` there. Scan has the passes
// over a row of core/assignment/scan_kernel.h.
template <class Pricing>
class TransportSimplex {
  using Index = SpanningTree::Index;
  using Rows = typename Pricing::Rows;

 public:
  TransportSimplex(const TransportCost& cost, TransportWorkspace& workspace)
      : cost_(cost), own_(workspace), tree_(workspace.tree) {}

  void solve() {
    start();
    const std::int64_t patience = kPatience * (cost_.rows + cost_.columns);
    const auto entry = [this](std::int64_t i, std::int64_t j) { return cost_.at(i, j); };
    if (SmallBasis::fits(cost_.rows, cost_.columns)) {
      own_.small.build(cost_.rows, own_.steps, kTolerance, entry);
      improve(patience, own_.small.bound,
              [this](std::int64_t i, std::int64_t j) { enter_small(i, j); });
      own_.small.write(own_.steps);
    }
    tree_.build(cost_.rows, own_.steps, cost_.length - cost_.columns);
    // Again with duals that no pivot has rounded, until nothing is left to improve.
    for (std::int64_t pivots = 1, all = 0; pivots > 0; all += pivots) {
      tree_.set_tolerance(std::ldexp(kTolerance, static_cast<int>(all / patience)));
      tree_.settle(entry);
      pivots = improve(patience - all % patience, tree_.bounds(),
                       [this](std::int64_t i, std::int64_t j) { enter(i, j); });
    }
  }

 private:
  // Of a reduced cost, relative to the duals. It doubles after kPatience pivots for every line:
  // some ten are needed, so rounding is to blame for more.
  static constexpr double kTolerance = 0x1p-50;
  static constexpr std::int64_t kPatience = 200;

  // Rows in turn take from their cheapest columns, at prices of the column minima; first those that
  // lose most by their second choice. Every step closes a line, the last one two.
  void start() {
    own_.prices.assign(static_cast<std::size_t>(cost_.length), kInfinity);
    for (std::int64_t i = 0; i < cost_.rows; ++i) {
      Rows::lower_to_row(cost_.row(i), 1.0, 0.0, own_.prices.data(), cost_.length);
      own_.watch.count(cost_.length);
    }
    std::fill(own_.prices.begin() + cost_.columns, own_.prices.end(), 0.0);
    own_.turns.clear();
    for (std::int64_t i = 0; i < cost_.rows; ++i) {
      const auto found = nearest_columns(i);
      own_.turns.push_back({found.first - found.second, i});
    }
    std::sort(own_.turns.begin(), own_.turns.end());
    own_.steps.clear();
    for (const auto& turn : own_.turns) empty_row(turn.second);
  }

  TwoSmallest nearest_columns(std::int64_t i) {
    own_.watch.count(cost_.length);
    return Rows::two_smallest(cost_.row(i), 1.0, own_.prices.data(), cost_.length);
  }

  void empty_row(std::int64_t i) {
    const auto row = static_cast<Index>(i);
    std::int64_t supply = own_.supply[static_cast<std::size_t>(i)];
    for (;;) {
      const auto found = nearest_columns(i);
      const auto j = static_cast<std::size_t>(found.first_index);
      const auto column = static_cast<Index>(cost_.rows) + static_cast<Index>(j);
      if (supply <= own_.demand[j]) {
        own_.steps.push_back({row, column, supply});
        own_.demand[j] -= supply;
        return;
      }
      own_.steps.push_back({column, row, own_.demand[j]});
      supply -= own_.demand[j];
      own_.prices[j] = -kInfinity;
    }
  }

  // Pivots by enter_arc(row, column) until no entry is below the sum of its bounds, at most `most`
  // times; returns how often.
  // The rows take turns; of each, the entry that is farthest below.
  template <class Enter>
  std::int64_t improve(std::int64_t most, const double* bounds, const Enter& enter_arc) {
    const double* const of_columns = bounds + cost_.rows;
    std::int64_t pivots = 0, row = 0;
    for (std::int64_t idle = 0; idle < cost_.rows; ++idle) {
      own_.watch.count(cost_.length);
      if (Pricing::any_below(cost_.row(row), of_columns, bounds[row], cost_.length)) {
        if (pivots == most) return pivots;
        const auto found = Rows::two_smallest(cost_.row(row), 1.0, of_columns, cost_.length);
        enter_arc(row, static_cast<std::int64_t>(found.first_index));
        ++pivots;
        idle = -1;
      }
      if (++row == cost_.rows) row = 0;
    }
    return pivots;
  }

  void enter(std::int64_t i, std::int64_t j) {
    const auto row = static_cast<Index>(i), column = static_cast<Index>(cost_.rows + j);
    const double reduced = (cost_.at(i, j) - tree_.dual(column)) - tree_.dual(row);
    own_.watch.count(tree_.pivot(row, column, reduced));
  }

  void enter_small(std::int64_t i, std::int64_t j) {
    const std::int64_t column = cost_.rows + j;
    const double reduced = (cost_.at(i, j) - own_.small.dual[column]) - own_.small.dual[i];
    Pricing::Small::change(own_.small, i, column, reduced);
  }

  const TransportCost& cost_;
  TransportWorkspace& own_;
  SpanningTree& tree_;
};

}  // namespace lwfm
