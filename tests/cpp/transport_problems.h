// Transport problems in memory of exactly their size, and proofs of their answers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/transport.h"

namespace transport_problems {

template <class T>
struct Problem {
  std::int64_t rows, columns;
  std::vector<T> cost, row_weights, column_weights;

  lwfm::TransportProblem<T> view() const {
    return {{cost.data(), rows, columns, columns, 1},
            {row_weights.data(), rows, 1},
            {column_weights.data(), columns, 1}};
  }

  // The same, with rows and columns exchanged by strides.
  lwfm::TransportProblem<T> transposed() const {
    return {{cost.data(), columns, rows, 1, columns},
            {column_weights.data(), columns, 1},
            {row_weights.data(), rows, 1}};
  }
};

template <class T>
struct Answer {
  lwfm::TransportStatus status;
  std::vector<T> plan;
  std::vector<double> u, v;
};

template <class T>
Answer<T> solve(const lwfm::TransportProblem<T>& problem,
                lwfm::SimdLevel level = lwfm::simd_level()) {
  const auto rows = static_cast<std::size_t>(problem.cost.rows);
  const auto columns = static_cast<std::size_t>(problem.cost.columns);
  Answer<T> answer{lwfm::TransportStatus::ok, std::vector<T>(rows * columns, T{-7}),
                   std::vector<double>(rows, -7.0), std::vector<double>(columns, -7.0)};
  lwfm::TransportWorkspace workspace;
  answer.status = lwfm::solve_transport(
      problem, nullptr, workspace, {answer.plan.data(), answer.u.data(), answer.v.data()}, level);
  return answer;
}

// Whether the plan is feasible, on a forest, and the duals prove that it is optimal. `unit` is the
// rounding of one entry of T.
template <class T>
bool is_optimal(const Problem<T>& problem, const Answer<T>& answer, double unit) {
  double row_sum = 0.0, column_sum = 0.0, largest = 0.0;
  for (const T weight : problem.row_weights) row_sum += static_cast<double>(weight);
  for (const T weight : problem.column_weights) column_sum += static_cast<double>(weight);
  for (const T cost : problem.cost) largest = std::max(largest, std::fabs(double(cost)));
  const auto lines = static_cast<double>(problem.rows + problem.columns);
  const double scale = column_sum > 0.0 ? row_sum / column_sum : 1.0;
  const double rounding = lines * (unit + 1e-15) * row_sum;
  std::vector<double> of_columns(problem.column_weights.size(), 0.0);
  std::int64_t positive = 0;
  double total = 0.0, proven = 0.0;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    double of_row = 0.0;
    const double u = answer.u[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < problem.columns; ++j) {
      const auto at = static_cast<std::size_t>(i * problem.columns + j);
      const double cost = problem.cost[at], flow = answer.plan[at];
      const double v = answer.v[static_cast<std::size_t>(j)];
      const double slack = cost - u - v;
      const double tolerance = 1e-13 * (std::fabs(cost) + std::fabs(u) + std::fabs(v));
      if (!(flow >= 0.0) || !(slack >= -tolerance)) return false;
      if (flow > 0.0 && !(slack <= tolerance)) return false;
      positive += flow > 0.0;
      of_row += flow;
      of_columns[static_cast<std::size_t>(j)] += flow;
      total += flow * cost;
    }
    const double weight = problem.row_weights[static_cast<std::size_t>(i)];
    if (!(std::fabs(of_row - weight) <= rounding)) return false;
    proven += u * weight;
  }
  for (std::size_t j = 0; j < of_columns.size(); ++j) {
    const double weight = scale * static_cast<double>(problem.column_weights[j]);
    if (!(std::fabs(of_columns[j] - weight) <= rounding)) return false;
    proven += answer.v[j] * weight;
  }
  if (positive > std::max<std::int64_t>(0, problem.rows + problem.columns - 1)) return false;
  return std::fabs(total - proven) <= 4 * rounding * largest;
}

}  // namespace transport_problems
