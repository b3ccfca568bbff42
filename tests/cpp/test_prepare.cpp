// What happens before solving: entry checks, strides, failure messages.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "check.h"
#include "core/assignment.h"
#include "core/failure.h"
#include "core/prepare.h"
#include "problems.h"

namespace {

using lwfm::CostMatrix;
using lwfm::Status;

template <class T>
void invalid_entries_are_found() {
  constexpr T inf = std::numeric_limits<T>::infinity();
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  lwfm::Workspace workspace;
  std::int64_t assignment[3];
  for (int place = 0; place < 9; ++place) {
    for (const bool maximize : {false, true}) {
      for (const T bad : {nan, maximize ? inf : -inf}) {
        T entries[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
        entries[place] = bad;
        const CostMatrix<T> cost{entries, 3, 3, 3, 1};
        CHECK(lwfm::solve(cost, {maximize}, workspace, assignment) == Status::invalid_entry);
        const std::string text =
            lwfm::describe_failure(Status::invalid_entry, cost, maximize, "cost", {7});
        const std::string where =
            "cost[7, " + std::to_string(place / 3) + ", " + std::to_string(place % 3) + "]";
        CHECK(text.find("matrix contains invalid numeric entries") == 0);
        CHECK(text.find(where) != std::string::npos);
      }
    }
  }
}

// The same matrix through any strides gives the same answer.
template <class T>
void strides_do_not_matter() {
  lwfm::Workspace workspace;
  std::mt19937_64 engine(7);
  for (const auto& [rows, columns] : {std::pair{4, 4}, {3, 6}, {6, 3}}) {
    const auto problem =
        problems::make<T>(rows, columns, [&] { return static_cast<double>(engine() % 50); });
    const auto expected = problems::solve(problem.cost(), false, workspace).assignment;
    std::vector<T> spread(static_cast<std::size_t>(rows * columns * 6));
    for (const bool by_column : {false, true}) {
      const std::int64_t row_stride = by_column ? 2 : -3 * columns;
      const std::int64_t column_stride = by_column ? 2 * rows : 3;
      T* origin = spread.data() + (by_column ? 0 : (rows - 1) * 3 * columns);
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
          origin[i * row_stride + j * column_stride] = problem.cost().at(i, j);
        }
      }
      const CostMatrix<T> view{origin, rows, columns, row_stride, column_stride};
      CHECK(problems::solve(view, false, workspace).assignment == expected);
    }
  }
}

void subscripts_read_like_python() {
  CHECK(lwfm::subscript("cost", {}) == "cost");
  CHECK(lwfm::subscript("cost", {3}) == "cost[3]");
  CHECK(lwfm::subscript("cost", {3, 0, 12}) == "cost[3, 0, 12]");
}

}  // namespace

int main() {
  invalid_entries_are_found<float>();
  invalid_entries_are_found<double>();
  strides_do_not_matter<float>();
  strides_do_not_matter<double>();
  strides_do_not_matter<std::int16_t>();
  subscripts_read_like_python();
  return check::result();
}
