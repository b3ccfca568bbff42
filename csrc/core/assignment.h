// The rectangular linear assignment problem, exactly.
//
//   minimise (or maximise) sum_i cost[i, column(i)] over all ways to give each row of the shorter
//   side its own column of the longer one.
//
// R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
// assignment problems", Computing 38 (1987), 325-340; the rectangular form as in D. F. Crouse, "On
// implementing 2D rectangular assignment algorithms", IEEE Trans. Aerosp. Electron. Syst. 52
// (2016).
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>

#include "cost_matrix.h"
#include "prepare.h"
#include "reduction.h"
#include "shortest_path.h"
#include "status.h"
#include "workspace.h"

namespace lwfm {

// Where to put the dual variables: u [rows], v [columns]. Both null: not wanted.
struct Duals {
  double* u = nullptr;
  double* v = nullptr;
};

// Solves a prepared problem; the answer stands in the workspace (row_to_column, v).
template <class T>
Status solve_dense(const DenseCost<T>& cost, Workspace& workspace) {
  workspace.reserve(cost.rows, cost.columns);
  Status status = Status::ok;
  if (cost.rows == cost.columns) status = reduce_columns(cost, workspace);
  if (status == Status::ok) status = match_tight_rows(cost, workspace);
  if (status != Status::ok) return status;
  reduce_augmenting_rows(cost, workspace);
  PathSearch<T> search(cost, workspace);
  for (const std::int64_t row : workspace.free_rows) {
    status = search.augment(row);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

// Writes the duals of the caller's problem: u[i] + v[j] <= cost[i, j] (>= when maximising), with
// equality on assigned pairs, up to rounding.
template <class T>
void write_duals(const Prepared<T>& problem, const Workspace& workspace, Duals duals) {
  double* shorter = problem.transposed ? duals.v : duals.u;
  double* longer = problem.transposed ? duals.u : duals.v;
  const double unscale = 1.0 / problem.cost.factor;
  for (std::int64_t i = 0; i < problem.cost.rows; ++i) {
    const std::int64_t j = workspace.row_to_column[i];
    const double dual = problem.cost.at(i, j) - workspace.v[j];
    shorter[i] = dual * unscale + problem.offset;
  }
  for (std::int64_t j = 0; j < problem.cost.columns; ++j) longer[j] = workspace.v[j] * unscale;
}

// Solves one problem.
//
//   cost       [rows, columns]; +inf forbids a pair, NaN and -inf are invalid (signs swapped when
//              maximising)
//   assignment [rows], written: the column of each row, -1 for a row without one
//   duals      written if not null and the status is ok
//
// Deterministic: among equal choices the first free column, then the lower index; a constant matrix
// gives the identity. O(rows^2 * columns) time at most; memory O(rows + columns), and one copy of
// the entries if they are integers, or if the columns of the longer side are not adjacent.
template <class T>
Status solve(const CostMatrix<T>& cost, bool maximize, Workspace& workspace,
             std::int64_t* assignment, Duals duals = {}) noexcept {
  std::fill_n(assignment, cost.rows, std::int64_t{-1});
  try {
    const Prepared<T> problem = prepare(cost, maximize, workspace);
    Status status = problem.status;
    if (status == Status::ok) status = solve_dense(problem.cost, workspace);
    if (status != Status::ok) return status;
    for (std::int64_t i = 0; i < problem.cost.rows; ++i) {
      const std::int64_t j = workspace.row_to_column[i];
      assignment[problem.transposed ? j : i] = problem.transposed ? i : j;
    }
    if (duals.u != nullptr) write_duals(problem, workspace, duals);
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
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
