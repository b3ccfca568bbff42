// A cost matrix as the caller holds it, and as the solver reads it.
#pragma once

#include <cstdint>
#include <type_traits>

namespace lwfm {

// A strided view of the caller's memory: entry (i, j) is data[i * row_stride + j * column_stride].
// Strides count elements and may be negative or zero. T is an arithmetic type.
template <class T>
struct CostMatrix {
  const T* data;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t row_stride;
  std::int64_t column_stride;

  T at(std::int64_t i, std::int64_t j) const { return data[i * row_stride + j * column_stride]; }
};

// The type in which a problem's entries are read while solving: float32 stays float32 in memory,
// everything else is float64. Sums and duals are float64 always.
template <class T>
using Real = std::conditional_t<std::is_same_v<T, float>, float, double>;

// What the solver works on: rows <= columns, unit column stride, to be minimized over
// factor * data[...]. The factor is a power of two up to sign, so the product is exact.
template <class T>
struct DenseCost {
  const T* data;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t row_stride;
  double factor;

  const T* row(std::int64_t i) const { return data + i * row_stride; }
  double at(std::int64_t i, std::int64_t j) const {
    return factor * static_cast<double>(row(i)[j]);
  }
};

}  // namespace lwfm
