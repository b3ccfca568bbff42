// Any bytes are a problem: whatever they hold, rankings and bottleneck assignments end, touch only
// their memory, agree with the solver, and are the same on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/bottleneck.h"
#include "core/ranking.h"
#include "fuzz_bytes.h"
#include "problems.h"

namespace {

using fuzz::Bytes;
using fuzz::require;
using lwfm::Status;

using Columns = std::vector<std::int64_t>;

// The assignments of a ranking, which must be complete, in order and different.
template <class T>
void check_order(const problems::Problem<T>& problem, bool maximize, const lwfm::Best& best) {
  std::vector<Columns> all;
  for (std::size_t q = 0; q < best.totals.size(); ++q) {
    const auto first = best.columns.begin() + static_cast<std::ptrdiff_t>(q) * problem.rows;
    all.emplace_back(first, first + problem.rows);
    require(problems::is_complete(all.back(), problem.columns),
            "a ranked assignment is not complete");
    if (q == 0) continue;
    const double step = best.totals[q] - best.totals[q - 1];
    require(maximize ? step <= 0.0 : step >= 0.0, "totals are not in order");
  }
  std::sort(all.begin(), all.end());
  require(std::adjacent_find(all.begin(), all.end()) == all.end(), "an assignment comes twice");
}

// The largest finite magnitude.
template <class T>
double largest_entry(const problems::Problem<T>& problem) {
  double largest = 0.0;
  for (const T entry : problem.entries) {
    const double size = std::fabs(static_cast<double>(entry));
    if (!std::isinf(size)) largest = std::max(largest, size);
  }
  return largest;
}

template <class T>
void rank_and_check(const problems::Problem<T>& problem, bool maximize, std::int64_t k,
                    const problems::Solution& optimum) {
  lwfm::Workspace workspace;
  lwfm::Best best, portable;
  const Status status = lwfm::find_best(problem.cost(), k, maximize, nullptr, workspace, best);
  require(status == optimum.status, "the ranking and the solver disagree on the status");
  require(lwfm::find_best(problem.cost(), k, maximize, nullptr, workspace, portable,
                          lwfm::SimdLevel::portable) == status,
          "instruction sets disagree on the status of the ranking");
  if (status != Status::ok) return;
  require(best.columns == portable.columns, "instruction sets disagree on the ranking");
  const double largest = largest_entry(problem);
  if (largest > 1e300) return;  // totals overflow
  check_order(problem, maximize, best);
  const auto lines = static_cast<double>(problem.rows + problem.columns);
  require(std::fabs(best.totals[0] - optimum.total) <= 1e-14 * largest * lines,
          "the first assignment is not the best");
}

template <class T>
double largest_of(const problems::Problem<T>& problem, const lwfm::BottleneckOptions& options,
                  Status expected) {
  lwfm::Workspace workspace;
  Columns columns(static_cast<std::size_t>(problem.rows)), portable(columns);
  double bound = 0.0;
  const Status status =
      lwfm::solve_bottleneck(problem.cost(), options, workspace, columns.data(), bound);
  require(status == expected, "the bottleneck and the solver disagree on the status");
  require(lwfm::solve_bottleneck(problem.cost(), options, workspace, portable.data(), bound,
                                 lwfm::SimdLevel::portable) == status,
          "instruction sets disagree on the status of the bottleneck");
  if (status != Status::ok) return 0.0;
  require(columns == portable, "instruction sets disagree on the bottleneck");
  require(problems::is_complete(columns, problem.columns), "the bottleneck is not complete");
  return lwfm::largest_cost(problem.cost(), options.maximize, columns.data());
}

template <class T>
void solve_one(Bytes bytes, std::int64_t rows, std::int64_t columns, int kind, bool maximize) {
  const auto k = static_cast<std::int64_t>(1 + bytes.take<std::uint8_t>() % 40);
  const auto problem =
      problems::make<T>(rows, columns, [&] { return fuzz::entry<T>(bytes, kind); });
  lwfm::Workspace workspace;
  const auto optimum = problems::solve(problem.cost(), maximize, workspace);
  rank_and_check(problem, maximize, k, optimum);
  const double plain = largest_of(problem, {maximize, false, nullptr}, optimum.status);
  const double refined = largest_of(problem, {maximize, true, nullptr}, optimum.status);
  // 64-bit integers that span more than 2^53 are rounded.
  const double rounding =
      sizeof(T) == 8 && std::is_integral_v<T> ? 0x1p-50 * largest_entry(problem) : 0.0;
  require(std::fabs(plain - refined) <= rounding || plain == refined,
          "the refinement changes the bottleneck");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::with_problem(data, size, 40, [](auto zero, auto&&... arguments) {
    solve_one<decltype(zero)>(arguments...);
  });
  return 0;
}
