// The assignment kernels, executed under CPU emulation, against the solver of the core, whatever
// the schedule: the same status and the same total; the same answer where it is the only one, and,
// up to 32 columns, always.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core_solver.h"
#include "cpp/check.h"
#include "cuda/assignment.h"
#include "simt/emulator/schedules.h"

namespace {

using lwfm::Status;

constexpr double kInf = std::numeric_limits<double>::infinity();
std::mt19937_64 engine(5);

double uniform() { return std::uniform_real_distribution<double>(0, 1)(engine); }
std::int64_t integer(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
}

// A batch of problems in memory of exactly its size.
struct Shape {
  std::int64_t count, rows, columns;
  enum class Layout { plain, transposed, spread } layout = Layout::plain;
  bool maximize = false;
  double limit = kInf;  // of the cost of a pair

  bool limited() const { return std::isfinite(limit); }

  // Where kernels repeat the arithmetic of the core step by step.
  bool in_lanes() const { return lwfm::solver_columns(rows, columns, limited()) <= 32; }

  // In elements: of the batch, a row and a column.
  std::int64_t stride(int dimension) const {
    const std::int64_t plain[] = {rows * columns, columns, 1};
    const std::int64_t transposed[] = {rows * columns, 1, rows};
    const std::int64_t spread[] = {3, 7 * count * columns, 3 * count + 1};  // batch innermost
    return layout == Layout::plain        ? plain[dimension]
           : layout == Layout::transposed ? transposed[dimension]
                                          : spread[dimension];
  }

  std::int64_t elements() const {
    return (count - 1) * stride(0) + (rows - 1) * stride(1) + (columns - 1) * stride(2) + 1;
  }
};

std::string name(const Shape& shape, const char* family) {
  return std::string(family) + " " + std::to_string(shape.count) + " x " +
         std::to_string(shape.rows) + " x " + std::to_string(shape.columns) + " layout " +
         std::to_string(static_cast<int>(shape.layout)) + (shape.maximize ? " maximize" : "") +
         (shape.limited() ? " limit " + std::to_string(shape.limit) : "");
}

struct Answer {
  explicit Answer(const Shape& shape)
      : assignment(static_cast<std::size_t>(shape.count * shape.rows), -7),
        statuses(static_cast<std::size_t>(shape.count), -7),
        u(assignment.size(), -7.0),
        v(static_cast<std::size_t>(shape.count * shape.columns), -7.0) {}

  std::vector<std::int64_t> assignment;
  std::vector<std::int32_t> statuses;
  std::vector<double> u, v;
};

template <class T>
Answer by_kernel(const Shape& shape, const std::vector<T>& costs, bool duals = true) {
  const std::int64_t workspace =
      lwfm::assignment_workspace_bytes(shape.count, shape.rows, shape.columns, shape.limited());
  std::vector<double> memory(static_cast<std::size_t>(workspace / 8));
  Answer answer(shape);
  const int error = lwfm::solve_assignments(
      lwfm::AssignmentBatch<T>{costs.data(), shape.count, shape.rows, shape.columns,
                               shape.stride(0), shape.stride(1), shape.stride(2), shape.maximize,
                               shape.limit, answer.assignment.data(),
                               duals ? answer.u.data() : nullptr, duals ? answer.v.data() : nullptr,
                               answer.statuses.data(), memory.data()},
      nullptr);
  CHECK(error == 0);
  return answer;
}

template <class T>
Answer by_core(const Shape& shape, const std::vector<T>& costs) {
  Answer answer(shape);
  for (std::int64_t b = 0; b < shape.count; ++b) {
    const lwfm::CostMatrix<T> cost{costs.data() + b * shape.stride(0), shape.rows, shape.columns,
                                   shape.stride(1), shape.stride(2)};
    std::int64_t* const assignment = answer.assignment.data() + b * shape.rows;
    double* const u = answer.u.data() + b * shape.rows;
    double* const v = answer.v.data() + b * shape.columns;
    const Status status = simt::solve_by_core(cost, shape.maximize, shape.limit, assignment, u, v);
    if (status != Status::ok) {
      std::fill_n(assignment, shape.rows, -1);
      std::fill_n(u, shape.rows, std::nan(""));
      std::fill_n(v, shape.columns, std::nan(""));
    }
    answer.statuses[static_cast<std::size_t>(b)] = static_cast<std::int32_t>(status);
  }
  return answer;
}

// One column for each row of the shorter side, all different, and the total of the core's answer.
template <class T>
bool is_as_good(const Shape& shape, const std::vector<T>& costs, const Answer& kernel,
                const Answer& core) {
  for (std::int64_t b = 0; b < shape.count; ++b) {
    if (core.statuses[static_cast<std::size_t>(b)] != 0) continue;
    const auto total = [&](const Answer& answer, std::set<std::int64_t>& used, double& largest) {
      double sum = 0;
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        const std::int64_t j = answer.assignment[static_cast<std::size_t>(b * shape.rows + i)];
        if (j < 0) continue;
        used.insert(j);
        const double cost = static_cast<double>(costs[static_cast<std::size_t>(
            b * shape.stride(0) + i * shape.stride(1) + j * shape.stride(2))]);
        largest = std::max(largest, std::fabs(cost));
        sum += cost;
      }
      return sum;
    };
    std::set<std::int64_t> by_kernel, by_core;
    double largest = 0;
    double difference = total(kernel, by_kernel, largest) - total(core, by_core, largest);
    if (shape.limited()) {  // a pair less leaves a row and a column unmatched
      const auto fewer =
          static_cast<double>(by_core.size()) - static_cast<double>(by_kernel.size());
      difference += fewer * shape.limit;
      largest = std::max(largest, std::fabs(shape.limit));
    }
    const double tolerance = 1e-14 * largest * static_cast<double>(shape.rows + shape.columns);
    if (!shape.limited() && by_kernel.size() != by_core.size()) return false;
    if (!by_kernel.empty() && *by_kernel.rbegin() >= shape.columns) return false;
    if (!(std::fabs(difference) <= tolerance)) return false;
  }
  return true;
}

// Whether the duals bound every cost, are exact for pairs and unmatched lines, and NaN where there
// is no answer. Those of huge costs may be infinite.
template <class T>
bool are_duals(const Shape& shape, const std::vector<T>& costs, const Answer& answer) {
  const auto huge = [](T cost) { return std::isfinite(cost) && std::fabs(cost) > 1e300; };
  if (std::any_of(costs.begin(), costs.end(), huge)) return true;
  const double sign = shape.maximize ? -1.0 : 1.0;
  const double free_price = shape.limited() ? shape.limit / 2 : 0.0;
  for (std::int64_t b = 0; b < shape.count; ++b) {
    const double* const u = answer.u.data() + b * shape.rows;
    const double* const v = answer.v.data() + b * shape.columns;
    const bool solved = answer.statuses[static_cast<std::size_t>(b)] == 0;
    std::vector<bool> free(static_cast<std::size_t>(shape.columns), true);
    for (std::int64_t i = 0; i < shape.rows; ++i) {
      if (solved == std::isnan(u[i])) return false;
      const std::int64_t own = answer.assignment[static_cast<std::size_t>(b * shape.rows + i)];
      if (solved && own < 0 && u[i] != free_price) return false;
      if (own >= 0) free[static_cast<std::size_t>(own)] = false;
      for (std::int64_t j = 0; solved && j < shape.columns; ++j) {
        const auto cost = static_cast<double>(costs[static_cast<std::size_t>(
            b * shape.stride(0) + i * shape.stride(1) + j * shape.stride(2))]);
        if (std::isinf(cost)) continue;
        const double slack = sign * (cost - u[i] - v[j]);
        const double rounding = 1e-13 * (std::fabs(cost) + std::fabs(u[i]) + std::fabs(v[j]));
        if (!(slack >= -rounding) || (j == own && !(slack <= rounding))) return false;
      }
    }
    for (std::int64_t j = 0; j < shape.columns; ++j) {
      if (solved == std::isnan(v[j])) return false;
      if (solved && free[static_cast<std::size_t>(j)] && v[j] != free_price) return false;
    }
  }
  return true;
}

bool same_duals(const std::vector<double>& a, const std::vector<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

enum class Ties { none, some };

int compared = 0;

template <class T>
void compare(const Shape& shape, const char* family, const std::function<double()>& entry,
             Ties ties = Ties::none) {
  std::vector<T> costs(static_cast<std::size_t>(shape.elements()));
  for (T& cost : costs) cost = static_cast<T>(entry());
  const Answer kernel = by_kernel(shape, costs), core = by_core(shape, costs);
  const std::string text = name(shape, family);
  check::report(kernel.statuses == core.statuses, (text + ": statuses").c_str(), __FILE__,
                __LINE__);
  const bool same = ties == Ties::none || shape.in_lanes();
  const bool right =
      same ? kernel.assignment == core.assignment : is_as_good(shape, costs, kernel, core);
  check::report(right, text.c_str(), __FILE__, __LINE__);
  const bool proven = shape.in_lanes()
                          ? same_duals(kernel.u, core.u) && same_duals(kernel.v, core.v)
                          : are_duals(shape, costs, kernel);
  check::report(proven, (text + ": duals").c_str(), __FILE__, __LINE__);
  compared += static_cast<int>(shape.count);
}

// A few shapes of each kernel where a run is slow or repeats another, else a broad choice.
#if defined(LWFM_QUICK) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || \
    !LWFM_WARP_REDUCE
constexpr bool kThorough = false;
#else
constexpr bool kThorough = true;
#endif

// Every family of costs on problems of one shape.
template <class T>
void compare_families(const Shape& shape, bool special = kThorough) {
  const double forbidden = shape.maximize ? -kInf : kInf;
  compare<T>(shape, "uniform", [] { return uniform() - 0.25; });
  compare<T>(shape, "few integers", [] { return integer(0, 2); }, Ties::some);
  compare<T>(shape, "products", [] { return uniform() * uniform() * uniform(); });
  compare<T>(shape, "constant", [] { return 0.5; });
  if (!special || shape.columns > 64) return;
  compare<T>(shape, "signed zeros", [] { return integer(0, 1) == 0 ? 0.0 : -0.0; }, Ties::some);
  compare<T>(shape, "tiny", [] { return 1e-30 * uniform(); });
  compare<T>(shape, "large", [] { return 1e30 * (uniform() - 0.5); });
  compare<T>(shape, "some forbidden", [&] { return integer(0, 3) == 0 ? forbidden : uniform(); });
  compare<T>(shape, "most forbidden", [&] { return integer(0, 3) != 0 ? forbidden : uniform(); });
  const double often = 0.7 / static_cast<double>(shape.rows * shape.columns);
  compare<T>(shape, "NaN", [&] { return uniform() < often ? std::nan("") : uniform(); });
  compare<T>(shape, "wrong infinity", [&] { return uniform() < often ? -forbidden : uniform(); });
  if (sizeof(T) == 8) {
    compare<T>(shape, "nearly overflowing", [] { return 1.7e308 * (2 * uniform() - 1); });
    compare<T>(
        shape, "some huge", [&] { return uniform() < often ? 1.5e305 : uniform(); }, Ties::some);
  }
}

template <class T>
void compare_shapes(const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) compare_families<T>(shape);
}

template <class T>
void one_column_to_a_lane() {
  compare_families<T>({5, 9, 9}, true);
  // Many ways to be as good: the one that the order of columns decides.
  compare<T>({150, 6, 6}, "zeros and ones", [] { return integer(0, 1); }, Ties::some);
  compare<T>({60, 5, 9}, "zeros and ones", [] { return integer(0, 1); }, Ties::some);
  // Unscaled, the difference of two such costs is infinite, and so forbidden.
  const double huge = sizeof(T) == 8 ? 1.7e308 : 3e38;
  compare<T>(
      {9, 9, 9}, "two huge values", [huge] { return integer(0, 2) == 0 ? -huge : huge; },
      Ties::some);
  compare_shapes<T>({{3, 32, 32, Shape::Layout::spread, true}, {2, 31, 7}});
  if (!kThorough) return;
  for (std::int64_t rows = 1; rows <= 6; ++rows) {
    for (std::int64_t columns = 1; columns <= 6; ++columns) {
      compare_shapes<T>({{7, rows, columns, Shape::Layout(integer(0, 2)), integer(0, 1) == 1}});
    }
  }
  compare_shapes<T>(
      {{6, 16, 16}, {5, 25, 25, Shape::Layout::transposed}, {9, 31, 31}, {4, 32, 32}});
  compare_shapes<T>({{5, 17, 32}, {3, 32, 17, Shape::Layout::spread}, {3, 1, 32}, {3, 32, 1}});
}

// As above, but for the columns in which a row stays unmatched.
template <class T>
void limited() {
  using Layout = Shape::Layout;
  compare_families<T>({5, 9, 9, Layout::plain, false, 0.3});
  compare_families<T>({3, 16, 16, Layout::spread, true, 0.2});
  compare_families<T>({3, 20, 9, Layout::transposed, false, -0.1});
  compare<T>(
      {60, 6, 7, Layout::plain, false, 1.5}, "integers", [] { return integer(0, 2); }, Ties::some);
  // Pairs that cost just the limit, which are not made.
  compare<T>(
      {60, 6, 7, Layout::plain, false, 1.0}, "integers", [] { return integer(0, 2); }, Ties::some);
  compare_families<T>({2, 30, 30, Layout::spread, true, 0.4}, false);
  compare_families<T>({2, 3, 1720, Layout::plain, false, 0.1}, false);  // with a workspace
  compare<T>({1, 70, 60, Layout::plain, false, 0.1}, "uniform", [] { return uniform(); });
  if (!kThorough) return;
  for (std::int64_t rows = 1; rows <= 4; ++rows) {
    for (std::int64_t columns = 1; columns <= 4; ++columns) {
      const Layout layout = Layout(integer(0, 2));
      compare_families<T>({7, rows, columns, layout, integer(0, 1) == 1, uniform() - 0.2});
    }
  }
  compare_families<T>({3, 50, 40, Layout::transposed, false, 0.05});
  compare_families<T>({1, 64, 64, Layout::plain, true, 0.6});
  CHECK(lwfm::assignment_workspace_bytes(2, 3, 1716, false) == 0);
  CHECK(lwfm::assignment_workspace_bytes(2, 3, 1800, true) ==
        2 * lwfm::assignment_workspace_bytes(1, 3, 1800, true));
}

// Without duals the assignment is the same.
void duals_are_optional() {
  for (const Shape& shape : {Shape{5, 9, 9}, Shape{2, 40, 40}, Shape{1, 20, 150}}) {
    std::vector<float> costs(static_cast<std::size_t>(shape.elements()));
    for (float& cost : costs) cost = static_cast<float>(uniform());
    const Answer with = by_kernel(shape, costs), without = by_kernel(shape, costs, false);
    CHECK(with.assignment == without.assignment);
    CHECK(without.u == Answer(shape).u);
  }
}

template <class T>
void several_columns_to_a_lane() {
  compare_shapes<T>({{2, 33, 33}, {5, 40, 50, Shape::Layout::spread, true}});
  // Several searches in a problem, each from the duals that the one before has left.
  compare<T>({4, 60, 60}, "two values", [] { return integer(0, 3) == 0 ? 0 : 1; }, Ties::some);
  compare<T>({4, 60, 60}, "uniform", [] { return uniform(); });
  compare<T>({4, 40, 50}, "NaN", [] { return uniform() < 5e-4 ? std::nan("") : uniform(); });
  if (!kThorough) return;
  compare_shapes<T>({{3, 50, 40}, {5, 49, 49, Shape::Layout::transposed}, {2, 64, 64}});
  compare_shapes<T>({{1, 128, 128}, {1, 128, 33}, {2, 1, 90}, {2, 65, 127}});
}

template <class T>
void one_block_to_a_problem() {
  compare_shapes<T>({{2, 20, 150}, {2, 3, 1720}});  // the latter with a workspace
  if (!kThorough) return;
  compare_shapes<T>({{1, 129, 129}, {1, 160, 160, Shape::Layout::transposed, true}, {2, 10, 700}});
  // State in shared memory up to the limit, and in the workspace above.
  compare_shapes<T>({{1, 4, 1716}, {3, 5, 1800}, {2, 1750, 3, Shape::Layout::spread}});
  CHECK(lwfm::assignment_workspace_bytes(1, 4, 1716, false) == 0);
  CHECK(lwfm::assignment_workspace_bytes(3, 5, 1800, false) ==
        3 * lwfm::assignment_workspace_bytes(1, 5, 1800, false));
  CHECK(lwfm::assignment_workspace_bytes(1, 1750, 3, false) > 0);
}

}  // namespace

int main() {
  simt::for_each_schedule([] {
    one_column_to_a_lane<float>();
    one_column_to_a_lane<double>();
    several_columns_to_a_lane<float>();
    several_columns_to_a_lane<double>();
    one_block_to_a_problem<float>();
    limited<float>();
    limited<double>();
    duals_are_optional();
  });
  std::printf("%d problems solved\n", compared);
  return check::result();
}
