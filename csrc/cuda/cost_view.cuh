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
