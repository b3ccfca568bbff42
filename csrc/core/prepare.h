// From the caller's cost matrix to the solver's: checks every entry, turns a tall matrix on its
// side, reads integers exactly, and scales float64 costs whose sums would overflow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cost_matrix.h"
#include "workspace.h"

namespace lwfm {

// What a pass over the entries found: a NaN or -inf; a finite magnitude above kLargest.
struct EntryCheck {
  bool invalid = false;
  bool huge = false;
};

// The smallest entry of an integer matrix: subtracting it first keeps every cost exact as long as
// the range of the entries, not their magnitude, stays below 2^53.
template <class T>
T smallest_entry(const CostMatrix<T>& cost) {
  T smallest = std::numeric_limits<T>::max();
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      if (cost.at(i, j) < smallest) smallest = cost.at(i, j);
    }
  }
  return smallest;
}

template <class T>
Real<T> read_entry(T entry, [[maybe_unused]] T offset) {
  if constexpr (std::is_integral_v<T>) {
    // Unsigned subtraction is exact for every pair of 64-bit integers with entry >= offset.
    return static_cast<double>(static_cast<std::uint64_t>(entry) -
                               static_cast<std::uint64_t>(offset));
  } else {
    return static_cast<Real<T>>(entry);
  }
}

// A problem in the form in which it is solved, and what was done to bring it there.
template <class T>
struct Prepared {
  DenseCost<Real<T>> cost;
  bool transposed;  // the solver's rows are the caller's columns
  double offset;    // subtracted from every entry (integers only)
};

// Returns the solver's view of `cost`; it points into the caller's memory where that has the right
// form and into `workspace` otherwise.
template <class T>
Prepared<T> prepare(const CostMatrix<T>& cost, bool maximize, Workspace& workspace) {
  const double factor = maximize ? -1.0 : 1.0;
  const bool transposed = cost.rows > cost.columns;
  CostMatrix<T> wide = cost;
  if (transposed) {
    wide = {cost.data, cost.columns, cost.rows, cost.column_stride, cost.row_stride};
  }
  if constexpr (std::is_floating_point_v<T>) {
    if (wide.column_stride == 1) {
      return {{wide.data, wide.rows, wide.columns, wide.row_stride, factor}, transposed, 0.0};
    }
  }
  T offset{};
  if constexpr (std::is_integral_v<T>) offset = smallest_entry(wide);
  auto& copy = workspace.entries(Real<T>{});
  copy.resize(static_cast<std::size_t>(wide.rows) * static_cast<std::size_t>(wide.columns));
  // Read in the order of the caller's memory; a tall matrix is turned on its side while writing.
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const std::int64_t to = transposed ? j * wide.columns + i : i * wide.columns + j;
      copy[static_cast<std::size_t>(to)] = read_entry<T>(cost.at(i, j), offset);
    }
  }
  return {{copy.data(), wide.rows, wide.columns, wide.columns, factor},
          transposed,
          static_cast<double>(offset)};
}

}  // namespace lwfm
