// The transport problem, exactly.
//
//   minimize sum_ij cost[i, j] plan[i, j] over all plans >= 0 whose rows sum to the row weights and
//   whose columns sum to the column weights.
//
// The primal simplex method on spanning trees: G. B. Dantzig, "Application of the simplex method to
// a transportation problem", in: Activity Analysis of Production and Allocation (1951), 359-373.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/prepare.h"
#include "core/interruption.h"
#include "core/simd/simd.h"
#include "core/status_of.h"
#include "core/transport/simplex.h"
#include "core/transport/status.h"
#include "core/transport/weights.h"
#include "core/transport/workspace.h"

namespace lwfm {

// A problem as the caller holds it. T is float or double.
template <class T>
struct TransportProblem {
  CostMatrix<T> cost;
  WeightView<T> row_weights, column_weights;
};

// Where to put the answer, contiguous.
//
//   plan [rows, columns]; at most rows + columns - 1 entries are positive
//   u, v [rows], [columns], or null: up to rounding u[i] + v[j] <= cost[i, j], with equality where
//        the plan is positive
template <class T>
struct TransportAnswer {
  T* plan;
  double *u, *v;
};

// Copies the costs times `factor`; whether all are finite and, so multiplied, at most kLargest.
template <class T>
EntryCheck copy_costs(const CostMatrix<T>& wide, double factor, std::int64_t length,
                      TransportWorkspace& workspace) {
  EntryCheck check;
  for (std::int64_t i = 0; i < wide.rows; ++i) {
    double* const to = workspace.cost.data() + i * length;
    double largest = 0.0;
    bool finite = true;
    for (std::int64_t j = 0; j < wide.columns; ++j) {
      to[j] = factor * static_cast<double>(wide.at(i, j));
      const double size = std::fabs(to[j]);
      finite = finite && size < kInfinity;
      largest = std::max(largest, size);
    }
    std::fill(to + wide.columns, to + length, kInfinity);
    check.invalid = check.invalid || !finite;
    check.huge = check.huge || largest > kLargest;
    workspace.watch.count(length);
  }
  return check;
}

inline void run_simplex(const TransportCost& cost, TransportWorkspace& workspace, SimdLevel level) {
#if LWFM_X86
  if (level == SimdLevel::avx512) {
    return TransportSimplex<avx512::Pricing>(cost, workspace).solve();
  }
  if (level == SimdLevel::avx2) return TransportSimplex<avx2::Pricing>(cost, workspace).solve();
#endif
  (void)level;
  TransportSimplex<portable::Pricing>(cost, workspace).solve();
}

// The answer in the caller's orientation, from an optimal tree.
template <class T>
class TransportWriter {
 public:
  TransportWriter(const TransportProblem<T>& problem, double row_sum, double column_sum,
                  const TransportAnswer<T>& answer)
      : problem_(problem),
        answer_(answer),
        transposed_(problem.cost.rows > problem.cost.columns),
        row_sum_(row_sum),
        column_factor_(column_sum > 0.0 ? row_sum / column_sum : 1.0) {}

  // The flows of the tree's arcs for the weights themselves, from its leaves to its root.
  void write_plan(TransportWorkspace& workspace) const {
    const CostMatrix<T>& cost = problem_.cost;
    const SpanningTree& tree = workspace.tree;
    std::fill_n(answer_.plan, cost.rows * cost.columns, T{0});
    const std::vector<SpanningTree::Index>& order = tree.order();
    workspace.left.resize(order.size());
    for (const SpanningTree::Index node : order) {
      workspace.left[static_cast<std::size_t>(node)] = weight(tree, node);
    }
    for (std::size_t k = order.size(); k-- > 1;) {
      const double flow = workspace.left[static_cast<std::size_t>(order[k])];
      if (flow <= kSmallest * row_sum_) continue;  // rounding
      workspace.left[static_cast<std::size_t>(tree.parent(order[k]))] -= flow;
      const auto [i, j] = entry(tree, order[k]);
      answer_.plan[i * cost.columns + j] = static_cast<T>(flow);
    }
  }

  void write_duals(const SpanningTree& tree, double factor) const {
    for (const SpanningTree::Index node : tree.order()) {
      const auto [of_row, line] = line_of(tree, node);
      (of_row ? answer_.u : answer_.v)[line] = tree.dual(node) / factor;
    }
  }

 private:
  static constexpr double kSmallest = 0x1p-50;

  struct Line {
    bool of_row;
    std::int64_t index;
  };
  struct Entry {
    std::int64_t i, j;
  };

  // The caller's row or column that a node is.
  Line line_of(const SpanningTree& tree, SpanningTree::Index node) const {
    return {tree.is_row(node) != transposed_, tree.is_row(node) ? node : node - tree.rows()};
  }

  Entry entry(const SpanningTree& tree, SpanningTree::Index node) const {
    const Line own = line_of(tree, node), other = line_of(tree, tree.parent(node));
    return own.of_row ? Entry{own.index, other.index} : Entry{other.index, own.index};
  }

  double weight(const SpanningTree& tree, SpanningTree::Index node) const {
    const Line line = line_of(tree, node);
    return line.of_row ? problem_.row_weights[line.index]
                       : problem_.column_weights[line.index] * column_factor_;
  }

  const TransportProblem<T>& problem_;
  const TransportAnswer<T>& answer_;
  const bool transposed_;
  const double row_sum_, column_factor_;
};

template <class T>
TransportStatus solve_checked(const TransportProblem<T>& problem, TransportWorkspace& workspace,
                              const TransportAnswer<T>& answer, SimdLevel level) {
  const WeightView<T>&rows = problem.row_weights, &columns = problem.column_weights;
  if (invalid_weight(rows) >= 0) return TransportStatus::invalid_row_weight;
  if (invalid_weight(columns) >= 0) return TransportStatus::invalid_column_weight;
  const double row_sum = sum_of(rows), column_sum = sum_of(columns);
  if (!are_balanced(row_sum, column_sum)) return TransportStatus::unequal_sums;
  const CostMatrix<T> wide = widened(problem.cost);
  if (wide.rows == 0) {  // no pairs, zero duals
    if (answer.u != nullptr) std::fill_n(answer.u, rows.count, 0.0);
    if (answer.v != nullptr) std::fill_n(answer.v, columns.count, 0.0);
    return TransportStatus::ok;
  }
  if (wide.rows + wide.columns > std::numeric_limits<SpanningTree::Index>::max()) {
    return TransportStatus::out_of_memory;
  }
  const std::int64_t length = (wide.columns + 7) / 8 * 8;
  workspace.cost.resize(static_cast<std::size_t>(wide.rows * length));
  double factor = 1.0;
  EntryCheck check = copy_costs(wide, factor, length, workspace);
  if (check.invalid) return TransportStatus::invalid_cost;
  if (check.huge) copy_costs(wide, factor = kShrink, length, workspace);
  workspace.supply.resize(static_cast<std::size_t>(wide.rows));
  workspace.demand.resize(static_cast<std::size_t>(wide.columns));
  const bool transposed = problem.cost.rows > problem.cost.columns;
  const IntegerWeights<T> integers = transposed
                                         ? IntegerWeights<T>(columns, column_sum, rows, row_sum)
                                         : IntegerWeights<T>(rows, row_sum, columns, column_sum);
  integers.write(workspace.supply.data(), workspace.demand.data());
  run_simplex({workspace.cost.data(), wide.rows, wide.columns, length}, workspace, level);
  const TransportWriter<T> writer(problem, row_sum, column_sum, answer);
  writer.write_plan(workspace);
  if (answer.u != nullptr) writer.write_duals(workspace.tree, factor);
  return TransportStatus::ok;
}

// Solves one problem. Costs are finite, weights are finite and not negative, and their sums are
// equal up to kWeightTolerance. Deterministic, and the same on every instruction set. Rounding
// apart, the total is the smallest; entries of the plan below 2^-50 of the sum of the weights are
// zero. Memory: a copy of the costs.
template <class T>
TransportStatus solve_transport(const TransportProblem<T>& problem, Interruption* interruption,
                                TransportWorkspace& workspace, const TransportAnswer<T>& answer,
                                SimdLevel level = simd_level()) noexcept {
  workspace.watch.begin(interruption);
  return status_of<TransportStatus>(
      [&] { return solve_checked(problem, workspace, answer, level); });
}

}  // namespace lwfm
