// What happens before solving: entry checks, strides, failure messages.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "core/assignment.h"
#include "core/assignment/error_message.h"
#include "core/assignment/prepare.h"
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

// The same in rows of many columns, which are looked at by vectors; forbidden pairs are no error.
template <class T>
void invalid_entries_are_found_in_long_rows() {
  constexpr T inf = std::numeric_limits<T>::infinity();
  constexpr std::int64_t rows = 2, columns = 71;
  lwfm::Workspace workspace;
  std::int64_t assignment[rows];
  for (std::int64_t place = 0; place < rows * columns; ++place) {
    for (const bool maximize : {false, true}) {
      const T forbidden = maximize ? -inf : inf;
      std::vector<T> entries(rows * columns, T{1});
      const CostMatrix<T> cost{entries.data(), rows, columns, columns, 1};
      for (const T bad : {std::numeric_limits<T>::quiet_NaN(), -forbidden}) {
        entries[static_cast<std::size_t>(place)] = bad;
        CHECK(lwfm::solve(cost, {maximize}, workspace, assignment) == Status::invalid_entry);
      }
      entries[static_cast<std::size_t>(place)] = forbidden;
      CHECK(lwfm::solve(cost, {maximize}, workspace, assignment) == Status::ok);
      CHECK(assignment[place / columns] != place % columns);
    }
  }
}

// Matrices whose rows are adjacent, as of a tall matrix seen as a wide one, are copied as they are.
template <class T>
void transposed_copies_are_equal() {
  lwfm::Watch watch;
  for (std::int64_t rows = 1; rows < 40; rows += 3) {
    for (const std::int64_t columns : {1, 7, 8, 16, 31, 33, 64}) {
      for (const std::int64_t gap : {0, 5}) {
        std::vector<T> entries(static_cast<std::size_t>((rows + gap) * columns));
        for (std::size_t k = 0; k < entries.size(); ++k) entries[k] = static_cast<T>(k);
        const CostMatrix<T> cost{entries.data(), rows, columns, 1, rows + gap};
        std::vector<T> copy(static_cast<std::size_t>(rows * columns + 1), T{-1});
        lwfm::copy_by_row(cost, copy.data(), watch);
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < columns; ++j) {
            CHECK(copy[static_cast<std::size_t>(i * columns + j)] == cost.at(i, j));
          }
        }
        CHECK(copy.back() == T{-1});
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

// Differences of 64-bit integers up to `span` are read without rounding, wherever they lie.
template <class T>
void integers_are_exact(T lowest, std::uint64_t span) {
  std::mt19937_64 engine(span);
  std::vector<T> entries;
  for (int k = 0; k < 35; ++k) {
    const std::uint64_t excess = k == 3 ? 0 : k == 5 ? span : engine() % (span + 1);
    entries.push_back(static_cast<T>(static_cast<std::uint64_t>(lowest) + excess));
  }
  for (const auto& [row_stride, column_stride] : {std::pair{7, 1}, {1, 5}}) {
    const CostMatrix<T> cost{entries.data(), 5, 7, row_stride, column_stride};
    std::vector<double> read(35);
    lwfm::Watch watch;
    lwfm::rewrite_integers(cost, read.data(), watch);
    const double smallest = *std::min_element(read.begin(), read.end());
    for (int i = 0; i < 5; ++i) {
      for (int j = 0; j < 7; ++j) {
        const std::uint64_t excess =
            static_cast<std::uint64_t>(cost.at(i, j)) - static_cast<std::uint64_t>(lowest);
        const double number = read[static_cast<std::size_t>(7 * i + j)] - smallest;
        CHECK(number == static_cast<double>(excess));
      }
    }
  }
}

void integers_of_any_size_are_exact() {
  for (const std::uint64_t span : {std::uint64_t{0}, std::uint64_t{1} << 40,
                                   (std::uint64_t{1} << 51) - 1, (std::uint64_t{1} << 53) - 1}) {
    for (const std::int64_t lowest :
         {std::int64_t{0}, std::int64_t{-3}, std::numeric_limits<std::int64_t>::min(),
          std::numeric_limits<std::int64_t>::max() - static_cast<std::int64_t>(span)}) {
      integers_are_exact<std::int64_t>(lowest, span);
    }
    for (const std::uint64_t lowest :
         {std::uint64_t{0}, (std::uint64_t{1} << 63) - span / 2, ~std::uint64_t{0} - span}) {
      integers_are_exact<std::uint64_t>(lowest, span);
    }
  }
}

// Integers of 64 bits that span more are rounded, but never wrap around.
void far_integers_keep_their_order() {
  const std::int64_t entries[] = {std::numeric_limits<std::int64_t>::max(), -1, 0,
                                  std::numeric_limits<std::int64_t>::min()};
  double read[4];
  lwfm::Watch watch;
  const CostMatrix<std::int64_t> cost{entries, 2, 2, 2, 1};
  CHECK(lwfm::rewrite_integers(cost, read, watch) == -0x1p63);
  CHECK(read[0] == 0x1p64 && read[1] == 0x1p63 && read[2] == 0x1p63 && read[3] == 0.0);
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
  invalid_entries_are_found_in_long_rows<float>();
  invalid_entries_are_found_in_long_rows<double>();
  transposed_copies_are_equal<float>();
  transposed_copies_are_equal<double>();
  strides_do_not_matter<float>();
  strides_do_not_matter<double>();
  strides_do_not_matter<std::int16_t>();
  strides_do_not_matter<std::int64_t>();
  integers_of_any_size_are_exact();
  far_integers_keep_their_order();
  subscripts_read_like_python();
  return check::result();
}
