// Any bytes are a transport problem: whatever they hold, the solver ends, reads and writes only its
// memory, and what it calls solved is proven optimal by its duals and the same on every instruction
// set. Built as fuzz_assignment.cpp is.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "fuzz_bytes.h"
#include "transport_problems.h"

namespace {

using fuzz::Bytes;
using fuzz::require;
using transport_problems::Problem;

// Any bit pattern, a few small numbers, or numbers of all sizes.
template <class T>
T number(Bytes& bytes, int kind) {
  if (kind == 0) return bytes.take<T>();
  const auto byte = bytes.take<std::uint8_t>();
  if (kind == 1) return static_cast<T>(byte % 4);
  return std::ldexp(static_cast<T>(byte), bytes.take<std::int8_t>() / 4);
}

// Makes the sums equal, so that the problem is not refused for them.
template <class T>
void balance(Problem<T>& problem) {
  double row_sum = 0.0, column_sum = 0.0;
  for (const T weight : problem.row_weights) row_sum += weight;
  for (const T weight : problem.column_weights) column_sum += weight;
  const double factor = row_sum / column_sum;
  if (!(factor > 0.0 && std::isfinite(factor))) return;
  for (T& weight : problem.column_weights) weight = static_cast<T>(weight * factor);
}

// Proofs are checked where rounding in them is far from overflow and underflow.
template <class T>
bool is_moderate(const Problem<T>& problem) {
  const auto moderate = [](T value) {
    const double size = std::fabs(static_cast<double>(value));
    return size == 0.0 || (size > 1e-25 && size < 1e25);
  };
  return std::all_of(problem.cost.begin(), problem.cost.end(), moderate) &&
         std::all_of(problem.row_weights.begin(), problem.row_weights.end(), moderate) &&
         std::all_of(problem.column_weights.begin(), problem.column_weights.end(), moderate);
}

template <class T>
void solve_one(Bytes bytes, std::int64_t rows, std::int64_t columns, int cost_kind,
               int weight_kind) {
  Problem<T> problem{rows, columns, {}, {}, {}};
  problem.cost.resize(static_cast<std::size_t>(rows * columns));
  problem.row_weights.resize(static_cast<std::size_t>(rows));
  problem.column_weights.resize(static_cast<std::size_t>(columns));
  for (T& weight : problem.row_weights) weight = number<T>(bytes, weight_kind);
  for (T& weight : problem.column_weights) weight = number<T>(bytes, weight_kind);
  for (T& cost : problem.cost) cost = number<T>(bytes, cost_kind);
  if (weight_kind != 0) balance(problem);
  const auto answer = transport_problems::solve(problem.view());
  const auto portable = transport_problems::solve(problem.view(), lwfm::SimdLevel::portable);
  require(answer.status == portable.status, "instruction sets disagree on the status");
  if (answer.status != lwfm::TransportStatus::ok) return;
  require(answer.plan == portable.plan, "instruction sets disagree on the plan");
  if (!is_moderate(problem)) return;
  require(transport_problems::is_optimal(problem, answer, std::numeric_limits<T>::epsilon()),
          "the duals do not prove the plan optimal");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  const std::int64_t rows = bytes.take<std::uint8_t>() % 40;
  const std::int64_t columns = bytes.take<std::uint8_t>() % 40;
  const auto choice = bytes.take<std::uint8_t>();
  const int cost_kind = choice % 3, weight_kind = choice / 3 % 3;
  if (choice / 9 % 2 == 0) {
    solve_one<float>(bytes, rows, columns, cost_kind, weight_kind);
  } else {
    solve_one<double>(bytes, rows, columns, cost_kind, weight_kind);
  }
  return 0;
}
