// The rectangular linear assignment problem, exactly.
//
//   minimize (or maximize) sum_i cost[i, column(i)] over all ways to give each row of the shorter
//   side its own column of the longer one.
//
// R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
// assignment problems", Computing 38 (1987), 325-340; the rectangular form as in D. F. Crouse, "On
// implementing 2D rectangular assignment algorithms", IEEE Trans. Aerosp. Electron. Syst. 52
// (2016).
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/levels.h"
#include "core/assignment/options.h"
#include "core/assignment/prepare.h"
#include "core/assignment/reduction.h"
#include "core/assignment/shortest_path.h"
#include "core/assignment/status.h"
#include "core/assignment/team_search.h"
#include "core/assignment/warm_start.h"
#include "core/assignment/workspace.h"
#include "core/simd/simd.h"
#include "core/status_of.h"

namespace lwfm {

// An answer in the solver's orientation: the column of each row, and the column duals.
template <class Index>
struct Answer {
  const Index* row_to_column;
  const double* v;
};

// Solves a problem of more than kSmallColumns columns; the answer is left in the workspace
// (row_to_column, v).
template <class Scan, class T>
Status solve_large(DenseCost<T>& cost, Workspace& workspace, const Options& options) {
  workspace.reserve(cost.rows, cost.columns);
  const bool square = cost.rows == cost.columns;
  Status status = reduce_columns<Scan>(cost, workspace, square ? options.warm_v : nullptr);
  if (status != Status::ok) return status;
  if (square && options.warm_columns != nullptr && cost.columns >= kWarmColumns) {
    adopt_columns<Scan>(cost, workspace, options.warm_columns);
  } else if (square && options.warm_v == nullptr && has_ties<Scan>(cost, workspace)) {
    match_tight_rows<Scan>(cost, workspace);
  } else {
    list_all_rows(cost, workspace);
  }
  reduce_augmenting_rows<Scan>(cost, workspace);
  const std::int64_t members = team_size(cost.columns, options.threads);
  if (members > 1) return augment_in_team<Scan>(cost, workspace, members);
  return augment_free_rows<Scan>(cost, workspace);
}

template <class T>
Status solve_large(DenseCost<T>& cost, Workspace& workspace, const Options& options,
                   SimdLevel level) {
#if LWFM_X86
  if (level == SimdLevel::avx512) return solve_large<avx512::Scan>(cost, workspace, options);
  if (level == SimdLevel::avx2) return solve_large<avx2::Scan>(cost, workspace, options);
#endif
  (void)level;
  return solve_large<portable::Scan>(cost, workspace, options);
}

// Solves a problem of 1 <= rows <= columns <= kSmallColumns; the answer is left in `state`.
template <class T>
SmallStatus solve_small(const DenseCost<T>& cost, SmallState& state, SimdLevel level) {
#if LWFM_X86
  // Reducing up to three short vectors is faster than reducing two long ones.
  constexpr std::int64_t kShortVectors = 3 * avx2::Vec::kWidth;
  if (level == SimdLevel::avx512 && cost.columns > kShortVectors) {
    return avx512::solve_small(cost, state);
  }
  if (level != SimdLevel::portable) return avx2::solve_small(cost, state);
#endif
  (void)level;
  return portable::solve_small(cost, state);
}

// The caller's duals, for minimizing: u[i] + v[j] <= cost[i, j], with equality on pairs, up to
// rounding; with a cost limit no dual exceeds half of it, and that of an unmatched line equals it.
template <class T, class Index>
void write_duals(const Prepared<T>& problem, Answer<Index> answer, Duals duals) {
  const DenseCost<T>& cost = problem.cost;
  const bool limited = problem.paired_columns < cost.columns;
  double* shorter = problem.transposed ? duals.v : duals.u;
  double* longer = problem.transposed ? duals.u : duals.v;
  const double unit = problem.unit / cost.factor;
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    const std::int64_t j = answer.row_to_column[i];
    const double dual = cost.at(i, j) - answer.v[j];
    shorter[i] = (limited ? std::min(dual, 0.0) : dual) * unit + problem.row_offset;
  }
  for (std::int64_t j = 0; j < problem.paired_columns; ++j) {
    longer[j] = answer.v[j] * unit + problem.column_offset;
  }
}

// Writes an answer in the caller's form: assignment[i] and, where wanted, the duals.
template <class T, class Index>
void write_answer(const Prepared<T>& problem, Answer<Index> answer, std::int64_t* assignment,
                  Duals duals) {
  const bool same_form = !problem.transposed && problem.paired_columns == problem.cost.columns;
  if (same_form) std::copy_n(answer.row_to_column, problem.cost.rows, assignment);
  for (std::int64_t i = 0; !same_form && i < problem.cost.rows; ++i) {
    const std::int64_t j = answer.row_to_column[i];
    if (j < problem.paired_columns) {
      assignment[problem.transposed ? j : i] = problem.transposed ? i : j;
    }
  }
  if (duals.wanted()) write_duals(problem, answer, duals);
}

// What column duals prove about the solver's objective: no assignment costs less. Every row is
// read, since those that are assigned need not be tight.
template <class T>
double dual_bound(const DenseCost<T>& cost, Workspace& workspace) {
  double bound = 0.0;
  for (std::int64_t j = 0; j < cost.columns; ++j) bound += workspace.v[j];
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    double smallest = kInfinity;
    const T* row = cost.row(i);
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      smallest = std::min(smallest, cost.factor * static_cast<double>(row[j]) - workspace.v[j]);
    }
    bound += smallest;
  }
  return bound;
}

// The caller's objective where the solver's is `value`: the total of the pairs, and with a cost
// limit half of it for each row and column left unmatched.
template <class T>
double callers_objective(const Prepared<T>& problem, const Options& options, double value) {
  const DenseCost<T>& cost = problem.cost;
  const auto rows = static_cast<double>(cost.rows);
  const double price = options.limited() ? 0.5 * options.cost_limit *
                                               (static_cast<double>(problem.paired_columns) + rows)
                                         : problem.row_offset * rows;
  return problem.unit / cost.factor * value + price;
}

// Problems of few columns. If float64 entries could overflow, the problem is solved again, scaled.
template <class T, class Use>
Status solve_few_columns(Prepared<T>& problem, Workspace& workspace, SimdLevel level,
                         const Use& use) {
  SmallState& state = workspace.small;
  SmallStatus status = solve_small(problem.cost, state, level);
  if (status == SmallStatus::huge_entry) {
    problem.cost.factor *= kShrink;
    status = solve_small(problem.cost, state, level);
  }
  if (status == SmallStatus::invalid_entry) return Status::invalid_entry;
  if (status == SmallStatus::infeasible) return Status::infeasible;
  use(Answer<std::int32_t>{state.row_to_column, state.v});
  return Status::ok;
}

// Problems of many columns.
template <class T, class Use>
Status solve_many_columns(Prepared<T>& problem, const Options& options, Workspace& workspace,
                          SimdLevel level, const Use& use) {
  Status status = Status::interrupted;
  try {
    status = solve_large(problem.cost, workspace, options, level);
  } catch (const Interrupted&) {
  }
  if (status == Status::interrupted && options.bound != nullptr && workspace.has_duals) {
    *options.bound = callers_objective(problem, options, dual_bound(problem.cost, workspace));
  }
  if (status != Status::ok) return status;
  use(Answer<std::int64_t>{workspace.row_to_column.data(), workspace.v.data()});
  return Status::ok;
}

// Calls use(answer) if the problem is solved.
template <class T, class Use>
Status solve_prepared(Prepared<T>& problem, const Options& options, Workspace& workspace,
                      SimdLevel level, const Use& use) {
  const DenseCost<T>& cost = problem.cost;
  if (cost.rows == 0) {
    workspace.reserve(0, cost.columns);  // no pairs, zero duals
    use(Answer<std::int64_t>{workspace.row_to_column.data(), workspace.v.data()});
    return Status::ok;
  }
  if (cost.columns <= kSmallColumns) return solve_few_columns(problem, workspace, level, use);
  return solve_many_columns(problem, options, workspace, level, use);
}

// Solves one problem.
//
//   cost       [rows, columns]; +inf forbids a pair, NaN and -inf are invalid (signs swapped when
//              maximizing)
//   assignment [rows], written: the column of each row, -1 for a row without one
//   duals      written if not null and the status is ok: u[i] + v[j] <= cost[i, j] (>= when
//              maximizing), with equality on assigned pairs, up to rounding
//
// Deterministic, and the same on every instruction set: among equal choices the first free column,
// then the lower index; a constant matrix gives the identity. O(rows^2 * columns) time at most;
// memory O(rows + columns), and one copy of the entries if they are integers, if the columns of the
// longer side are not adjacent, or if there is a cost limit.
template <class T>
Status solve(const CostMatrix<T>& cost, const Options& options, Workspace& workspace,
             std::int64_t* assignment, Duals duals = {}, SimdLevel level = simd_level()) noexcept {
  std::fill_n(assignment, cost.rows, std::int64_t{-1});
  if (options.bound != nullptr) *options.bound = options.maximize ? kInfinity : -kInfinity;
  const auto solve_and_write = [&](auto problem) {
    return solve_prepared(problem, options, workspace, level, [&](const auto& answer) {
      write_answer(problem, answer, assignment, duals);
    });
  };
  workspace.watch.begin(options.interruption);
  return status_of<Status>([&] {
    workspace.watch.count(cost.rows * cost.columns);
    if (options.limited()) return solve_and_write(prepare_limited(cost, options, workspace));
    return solve_and_write(prepare(cost, options.maximize, workspace));
  });
}

// The cost of an assignment, summed in float64 in the order of the rows.
template <class T>
double total_cost(const CostMatrix<T>& cost, const std::int64_t* assignment) {
  double total = 0.0;
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    if (assignment[i] >= 0) total += static_cast<double>(cost.at(i, assignment[i]));
  }
  return total;
}

}  // namespace lwfm
