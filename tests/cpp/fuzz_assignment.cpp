// Any bytes are a problem: whatever they hold, the solver ends, reads and writes only its memory,
// and what it calls solved is proven optimal by its duals and the same on every instruction set.
//
// With clang and LWFM_FUZZ this is a libFuzzer target. Otherwise fuzz_main.cpp feeds it random
// bytes.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "fuzz_bytes.h"
#include "problems.h"

namespace {

using fuzz::Bytes;
using fuzz::entry;
using fuzz::require;

// Certificates are checked where rounding in them is far from overflow and underflow.
template <class T>
bool is_moderate(const problems::Problem<T>& problem, double& largest) {
  for (const T value : problem.entries) {
    const double size = std::fabs(static_cast<double>(value));
    if (std::isinf(size)) continue;
    if (size > 1e300) return false;
    largest = std::max(largest, size);
  }
  return true;
}

// Solves with the given start, on the best instruction set and on the portable one, and checks the
// answer. Returns its status.
template <class T>
lwfm::Status solve_and_check(const problems::Problem<T>& problem, const lwfm::Options& options) {
  lwfm::Workspace workspace;
  const auto solution = problems::solve(problem.cost(), options, workspace);
  std::vector<std::int64_t> portable(static_cast<std::size_t>(problem.rows));
  const lwfm::Status status = lwfm::solve(problem.cost(), options, workspace, portable.data(), {},
                                          lwfm::SimdLevel::portable);
  require(status == solution.status, "instruction sets disagree on the status");
  if (status != lwfm::Status::ok) return status;
  require(portable == solution.assignment, "instruction sets disagree on the assignment");
  require(problems::is_complete(solution.assignment, problem.columns),
          "the assignment is not complete");
  double largest = 0.0;
  if (!is_moderate(problem, largest)) return status;
  for (std::int64_t j = 0; options.warm_v != nullptr && j < problem.columns; ++j) {
    if (std::fabs(options.warm_v[j]) < lwfm::kLargest) {
      largest = std::max(largest, std::fabs(options.warm_v[j]));  // it adds its rounding
    }
  }
  const double tolerance = 1e-14 * largest * static_cast<double>(problem.rows + problem.columns);
  require(problems::is_certified(problem.cost(), solution, options.maximize, tolerance),
          "the duals do not prove the answer optimal");
  return status;
}

// Duals to start from: any bit patterns, or small numbers. Columns: any numbers, or small ones.
std::vector<double> warm_duals(Bytes& bytes, std::int64_t columns) {
  const bool any = bytes.take<std::uint8_t>() % 2 == 0;
  std::vector<double> duals(static_cast<std::size_t>(columns));
  for (double& dual : duals) dual = any ? bytes.take<double>() : bytes.take<std::int8_t>();
  return duals;
}

std::vector<std::int64_t> warm_columns(Bytes& bytes, std::int64_t rows) {
  const auto limit = bytes.take<std::uint16_t>();
  std::vector<std::int64_t> columns(static_cast<std::size_t>(rows));
  for (std::int64_t& column : columns) {
    column =
        limit % 8 == 0 ? bytes.take<std::int64_t>() : bytes.take<std::uint16_t>() % (limit + 1);
  }
  return columns;
}

template <class T>
void solve_one(Bytes bytes, std::int64_t rows, std::int64_t columns, int kind, bool maximize) {
  lwfm::Options options;
  options.maximize = maximize;
  const auto start = bytes.take<std::uint8_t>();
  const auto duals = warm_duals(bytes, start % 4 == 1 ? columns : 0);
  if (start % 4 == 1) options.warm_v = duals.data();
  std::vector<std::int64_t> earlier;
  if (start % 32 == 2) {  // only problems of some size start from columns
    rows = columns = lwfm::kWarmColumns + columns / 8;
    earlier = warm_columns(bytes, rows);
    options.warm_columns = earlier.data();
  }
  const auto problem = problems::make<T>(rows, columns, [&] { return entry<T>(bytes, kind); });
  const lwfm::Status status = solve_and_check(problem, options);
  if (start % 4 == 0) return;
  lwfm::Options cold;
  cold.maximize = maximize;
  require(solve_and_check(problem, cold) == status, "the start changes the status");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::with_problem(data, size, 48, [](auto zero, auto&&... arguments) {
    solve_one<decltype(zero)>(arguments...);
  });
  return 0;
}
