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
         std::to_string(static_cast<int>(shape.layout)) + (shape.maximize ? " maximize" : "");
}

template <class T>
struct Answer {
  std::vector<std::int64_t> assignment;
  std::vector<std::int32_t> statuses;
};

template <class T>
Answer<T> by_kernel(const Shape& shape, const std::vector<T>& costs) {
  const std::int64_t workspace =
      lwfm::assignment_workspace_bytes(shape.count, shape.rows, shape.columns);
  std::vector<double> memory(static_cast<std::size_t>(workspace / 8));
  Answer<T> answer{
      std::vector<std::int64_t>(static_cast<std::size_t>(shape.count * shape.rows), -7),
      std::vector<std::int32_t>(static_cast<std::size_t>(shape.count), -7)};
  const int error = lwfm::solve_assignments(
      lwfm::AssignmentBatch<T>{costs.data(), shape.count, shape.rows, shape.columns,
                               shape.stride(0), shape.stride(1), shape.stride(2), shape.maximize,
                               answer.assignment.data(), answer.statuses.data(), memory.data()},
      nullptr);
  CHECK(error == 0);
  return answer;
}

template <class T>
Answer<T> by_core(const Shape& shape, const std::vector<T>& costs) {
  Answer<T> answer;
  for (std::int64_t b = 0; b < shape.count; ++b) {
    const lwfm::CostMatrix<T> cost{costs.data() + b * shape.stride(0), shape.rows, shape.columns,
                                   shape.stride(1), shape.stride(2)};
    std::vector<std::int64_t> assignment(static_cast<std::size_t>(shape.rows));
    const Status status = simt::solve_by_core(cost, shape.maximize, assignment.data());
    if (status != Status::ok) assignment.assign(assignment.size(), -1);
    answer.assignment.insert(answer.assignment.end(), assignment.begin(), assignment.end());
    answer.statuses.push_back(static_cast<std::int32_t>(status));
  }
  return answer;
}

// One column for each row of the shorter side, all different, and the total of the core's answer.
template <class T>
bool is_as_good(const Shape& shape, const std::vector<T>& costs, const Answer<T>& kernel,
                const Answer<T>& core) {
  for (std::int64_t b = 0; b < shape.count; ++b) {
    if (core.statuses[static_cast<std::size_t>(b)] != 0) continue;
    const auto total = [&](const Answer<T>& answer, std::set<std::int64_t>& used, double& largest) {
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
    const double difference = total(kernel, by_kernel, largest) - total(core, by_core, largest);
    const double tolerance = 1e-14 * largest * static_cast<double>(shape.rows + shape.columns);
    if (by_kernel.size() != by_core.size() || *by_kernel.rbegin() >= shape.columns) return false;
    if (!(std::fabs(difference) <= tolerance)) return false;
  }
  return true;
}

enum class Ties { none, some };

int compared = 0;

template <class T>
void compare(const Shape& shape, const char* family, const std::function<double()>& entry,
             Ties ties = Ties::none) {
  std::vector<T> costs(static_cast<std::size_t>(shape.elements()));
  for (T& cost : costs) cost = static_cast<T>(entry());
  const Answer<T> kernel = by_kernel(shape, costs), core = by_core(shape, costs);
  const std::string text = name(shape, family);
  check::report(kernel.statuses == core.statuses, (text + ": statuses").c_str(), __FILE__,
                __LINE__);
  const bool same = ties == Ties::none || std::max(shape.rows, shape.columns) <= 32;
  const bool right =
      same ? kernel.assignment == core.assignment : is_as_good(shape, costs, kernel, core);
  check::report(right, text.c_str(), __FILE__, __LINE__);
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

template <class T>
void several_columns_to_a_lane() {
  compare_shapes<T>({{2, 33, 33}, {5, 40, 50, Shape::Layout::spread, true}});
  // Several searches in a problem, each from the duals that the one before has left.
  compare<T>({4, 60, 60}, "two values", [] { return integer(0, 3) == 0 ? 0 : 1; }, Ties::some);
  compare<T>({4, 60, 60}, "uniform", [] { return uniform(); });
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
  CHECK(lwfm::assignment_workspace_bytes(1, 4, 1716) == 0);
  CHECK(lwfm::assignment_workspace_bytes(3, 5, 1800) ==
        3 * lwfm::assignment_workspace_bytes(1, 5, 1800));
  CHECK(lwfm::assignment_workspace_bytes(1, 1750, 3) > 0);
}

}  // namespace

int main() {
  simt::for_each_schedule([] {
    one_column_to_a_lane<float>();
    one_column_to_a_lane<double>();
    several_columns_to_a_lane<float>();
    several_columns_to_a_lane<double>();
    one_block_to_a_problem<float>();
  });
  std::printf("%d problems solved\n", compared);
  return check::result();
}
