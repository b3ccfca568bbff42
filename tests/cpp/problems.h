// Random problems, the exhaustive answer to small ones, and the certificate that proves any answer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/assignment.h"

namespace problems {

template <class T>
struct Problem {
  std::vector<T> entries;
  std::int64_t rows;
  std::int64_t columns;

  lwfm::CostMatrix<T> cost() const { return {entries.data(), rows, columns, columns, 1}; }
};

template <class T, class Generate>
Problem<T> make(std::int64_t rows, std::int64_t columns, Generate generate) {
  Problem<T> problem{std::vector<T>(static_cast<std::size_t>(rows * columns)), rows, columns};
  for (T& entry : problem.entries) entry = static_cast<T>(generate());
  return problem;
}

struct Solution {
  lwfm::Status status;
  std::vector<std::int64_t> assignment;
  std::vector<double> u, v;
  double total;
};

template <class T>
Solution solve(const lwfm::CostMatrix<T>& cost, const lwfm::Options& options,
               lwfm::Workspace& workspace) {
  Solution solution;
  solution.assignment.resize(static_cast<std::size_t>(cost.rows));
  solution.u.resize(static_cast<std::size_t>(cost.rows));
  solution.v.resize(static_cast<std::size_t>(cost.columns));
  solution.status = lwfm::solve(cost, options, workspace, solution.assignment.data(),
                                {solution.u.data(), solution.v.data()});
  solution.total = lwfm::total_cost(cost, solution.assignment.data());
  return solution;
}

template <class T>
Solution solve(const lwfm::CostMatrix<T>& cost, bool maximize, lwfm::Workspace& workspace) {
  lwfm::Options options;
  options.maximize = maximize;
  return solve(cost, options, workspace);
}

// The best total over all assignments of the shorter side, by trying them; +-inf if there is none.
template <class T>
double exhaustive_total(const Problem<T>& problem, bool maximize) {
  const bool tall = problem.rows > problem.columns;
  const std::int64_t shorter = std::min(problem.rows, problem.columns);
  std::vector<std::int64_t> longer(
      static_cast<std::size_t>(std::max(problem.rows, problem.columns)));
  std::iota(longer.begin(), longer.end(), 0);
  const double sign = maximize ? -1.0 : 1.0;
  double best = std::numeric_limits<double>::infinity();
  do {
    double total = 0;
    for (std::int64_t i = 0; i < shorter; ++i) {
      const std::int64_t j = longer[static_cast<std::size_t>(i)];
      total += sign * static_cast<double>(problem.cost().at(tall ? j : i, tall ? i : j));
    }
    best = std::min(best, total);
    std::reverse(longer.begin() + shorter, longer.end());  // skip orders of the columns left over
  } while (std::next_permutation(longer.begin(), longer.end()));
  return sign * best;
}

// A one-to-one assignment of the whole shorter side.
inline bool is_complete(const std::vector<std::int64_t>& assignment, std::int64_t columns) {
  std::vector<char> taken(static_cast<std::size_t>(columns), 0);
  std::int64_t count = 0;
  for (const std::int64_t j : assignment) {
    if (j == -1) continue;
    if (j < 0 || j >= columns || taken[static_cast<std::size_t>(j)]) return false;
    taken[static_cast<std::size_t>(j)] = 1;
    ++count;
  }
  return count == std::min(static_cast<std::int64_t>(assignment.size()), columns);
}

// Feasible duals whose sum is the total prove that no assignment is better. `tolerance` is
// absolute.
template <class T>
bool is_certified(const lwfm::CostMatrix<T>& cost, const Solution& s, bool maximize,
                  double tolerance) {
  const double sign = maximize ? -1.0 : 1.0;
  double dual_total = 0;
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    const double u = sign * s.u[static_cast<std::size_t>(i)];
    dual_total += u;
    if (cost.rows > cost.columns && u > tolerance) return false;  // rows may stay free
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const double v = sign * s.v[static_cast<std::size_t>(j)];
      if (u + v > sign * static_cast<double>(cost.at(i, j)) + tolerance) return false;
    }
  }
  for (const double v : s.v) {
    dual_total += sign * v;
    if (cost.columns > cost.rows && sign * v > tolerance) return false;
  }
  return std::fabs(dual_total - sign * s.total) <=
         tolerance * static_cast<double>(cost.rows + cost.columns + 1);
}

}  // namespace problems
