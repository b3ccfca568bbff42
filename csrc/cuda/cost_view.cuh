// A cost matrix on the device, as a solver reads it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/assignment/limits.h"
#include "portable.h"

namespace lwfm {

// Entry (i, j) is factor * data[i * row_stride + j * column_stride], in float64; the factor is a
// power of two up to sign, so the product is exact. Strides count elements.
template <class T>
struct CostView {
  const T* data;
  std::int64_t row_stride;
  std::int64_t column_stride;
  double factor;

  __device__ double operator()(std::int64_t i, std::int64_t j) const {
    return factor * static_cast<double>(data[i * row_stride + j * column_stride]);
  }
};

// The problem of a cost limit in the form in which it is solved: pairs cost what they exceed the
// limit by, at half scale, those that do not pay are forbidden, and each row has a column of its
// own for staying unmatched; see prepare_limited() in core/assignment/prepare.h.
template <class T>
struct LimitedView {
  CostView<T> pairs;  // at half scale
  std::int64_t paired_columns;
  double limit;  // at half scale
  double factor;

  __device__ double operator()(std::int64_t i, std::int64_t j) const {
    if (j >= paired_columns) return j - paired_columns == i ? 0.0 : kInfinity;
    const double excess = pairs(i, j) - limit;
    return excess >= 0.0 ? kInfinity : factor * excess;
  }
};

// What the entries that a thread has looked at show.
struct EntryFlags {
  bool invalid = false;  // NaN or -inf
  bool huge = false;     // a finite magnitude above kLargest

  __device__ void add(double entry) {
    invalid = invalid || !(entry > -kInfinity);
    huge = huge || (entry > kLargest && entry < kInfinity) || entry < -kLargest;
  }
};

}  // namespace lwfm
