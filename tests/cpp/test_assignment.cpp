// The solver against exhaustive search on small problems and its own certificate on larger ones.
#include <cmath>
#include <cstdint>
#include <random>

#include "check.h"
#include "core/assignment.h"
#include "problems.h"

namespace {

using lwfm::Status;
using problems::Problem;

constexpr double kInf = std::numeric_limits<double>::infinity();
std::mt19937_64 engine(20240611);

double uniform() { return std::uniform_real_distribution<double>(0, 1)(engine); }
std::int64_t integer(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
}

template <class T>
double largest(const Problem<T>& problem) {
  double result = 0;
  for (const T entry : problem.entries) {
    const double size = std::fabs(static_cast<double>(entry));
    if (std::isfinite(size)) result = std::max(result, size);
  }
  return result;
}

template <class T>
void check_small(const Problem<T>& problem, bool maximize, lwfm::Workspace& workspace) {
  const double expected = problems::exhaustive_total(problem, maximize);
  const auto solution = problems::solve(problem.cost(), maximize, workspace);
  if (std::isinf(expected)) {
    CHECK(solution.status == Status::infeasible);
    return;
  }
  CHECK(solution.status == Status::ok);
  const double tolerance = 1e-14 * largest(problem) * 8;
  CHECK(problems::is_complete(solution.assignment, problem.columns));
  CHECK(std::fabs(solution.total - expected) <= tolerance);
  CHECK(problems::is_certified(problem.cost(), solution, maximize, tolerance));
}

template <class T>
void small_problems() {
  lwfm::Workspace workspace;
  for (int round = 0; round < 3000; ++round) {
    const std::int64_t rows = integer(0, 6), columns = integer(0, 6);
    const bool maximize = integer(0, 1) == 1;
    check_small(problems::make<T>(rows, columns,
                                  [] { return 1000 * uniform() - 500 * std::is_signed_v<T>; }),
                maximize, workspace);
    check_small(problems::make<T>(rows, columns, [] { return integer(0, 2); }), maximize,
                workspace);
    if constexpr (std::is_floating_point_v<T>) {
      const double scale = std::pow(10.0, static_cast<double>(integer(-30, 30)));
      const double forbidden = maximize ? -kInf : kInf;
      check_small(
          problems::make<T>(rows, columns,
                            [&] { return integer(0, 2) == 0 ? forbidden : scale * uniform(); }),
          maximize, workspace);
    }
  }
}

template <class T>
void large_problems() {
  lwfm::Workspace workspace;
  for (const auto& [rows, columns] : {std::pair{90, 90}, {40, 130}, {130, 40}, {1, 50}, {50, 1}}) {
    for (int round = 0; round < 20; ++round) {
      const std::int64_t range = std::int64_t{1} << integer(1, 40);
      const auto problem = problems::make<T>(rows, columns, [&] { return integer(0, range); });
      const bool maximize = round % 2 == 1;
      const auto solution = problems::solve(problem.cost(), maximize, workspace);
      CHECK(solution.status == Status::ok);
      CHECK(problems::is_complete(solution.assignment, columns));
      CHECK(problems::is_certified(problem.cost(), solution, maximize,
                                   1e-13 * largest(problem) * rows));
    }
  }
}

void constant_matrix_gives_identity() {
  lwfm::Workspace workspace;
  for (const auto& [rows, columns] : {std::pair{1, 1}, {7, 7}, {5, 9}, {9, 5}, {40, 40}}) {
    for (const double value : {0.0, 1.0, -3.5, 1e-30, 1e30, 1e308}) {
      const auto problem = problems::make<double>(rows, columns, [&] { return value; });
      const auto solution = problems::solve(problem.cost(), false, workspace);
      for (int i = 0; i < rows; ++i) CHECK(solution.assignment[i] == (i < columns ? i : -1));
    }
  }
}

void huge_costs_do_not_overflow() {
  lwfm::Workspace workspace;
  const Problem<double> problem{{1.7e308, -1.7e308, 1.6e308, 1.7e308}, 2, 2};
  const auto solution = problems::solve(problem.cost(), false, workspace);
  CHECK(solution.status == Status::ok);
  CHECK(solution.assignment[0] == 1 && solution.assignment[1] == 0);
}

void integers_beyond_the_mantissa_are_exact() {
  lwfm::Workspace workspace;
  const std::int64_t base = std::int64_t{1} << 62;
  const Problem<std::int64_t> problem{{base + 1, base, base, base + 3}, 2, 2};
  CHECK(problems::solve(problem.cost(), false, workspace).assignment[0] == 1);
  CHECK(problems::solve(problem.cost(), true, workspace).assignment[0] == 0);
  constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
  const Problem<std::int64_t> low{{lowest + 1, lowest, lowest, lowest}, 2, 2};
  CHECK(problems::solve(low.cost(), true, workspace).assignment[0] == 0);
}

}  // namespace

int main() {
  small_problems<float>();
  small_problems<double>();
  small_problems<std::int32_t>();
  small_problems<std::uint8_t>();
  large_problems<float>();
  large_problems<double>();
  large_problems<std::int64_t>();
  constant_matrix_gives_identity();
  huge_costs_do_not_overflow();
  integers_beyond_the_mantissa_are_exact();
  return check::result();
}
