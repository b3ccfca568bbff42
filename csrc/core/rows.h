// Sums and products of rows of numbers, compiled for every instruction set with what calls them.
#pragma once

#include <cstdint>

#include "lanes.h"

namespace lwfm {

template <class T>
LWFM_INLINE T inner_product(const T* x, const T* y, std::int64_t count) {
  Lanes<T> even{}, odd{}, a, b;
  std::int64_t k = 0;
  for (; k + 2 * kLanes<T> <= count; k += 2 * kLanes<T>) {
    load(x + k, a);
    load(y + k, b);
    even += a * b;
    load(x + k + kLanes<T>, a);
    load(y + k + kLanes<T>, b);
    odd += a * b;
  }
  even += odd;
  T sum = sum_of_lanes<T>(even);
  for (; k < count; ++k) sum += x[k] * y[k];
  return sum;
}

// to += factor * x
template <class T>
LWFM_INLINE void add_multiple(const T* x, T factor, std::int64_t count, T* to) {
  Lanes<T> a, b;
  std::int64_t k = 0;
  for (; k + kLanes<T> <= count; k += kLanes<T>) {
    load(x + k, a);
    load(to + k, b);
    b += a * factor;
    store<T>(b, to + k);
  }
  for (; k < count; ++k) to[k] += factor * x[k];
}

// Adds the rows row(0), row(1), ... times factor(0), factor(1), ... to `to`: four at a time, so
// that `to` is read and written less often.
template <class T, class Row, class Factor>
LWFM_INLINE void add_multiples(const Row& row, const Factor& factor, std::int64_t rows,
                               std::int64_t count, T* to) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T *x = row(r), *y = row(r + 1), *z = row(r + 2), *w = row(r + 3);
    const T fx = factor(r), fy = factor(r + 1), fz = factor(r + 2), fw = factor(r + 3);
    Lanes<T> a, b, c, d, sum;
    std::int64_t k = 0;
    for (; k + kLanes<T> <= count; k += kLanes<T>) {
      load(x + k, a);
      load(y + k, b);
      load(z + k, c);
      load(w + k, d);
      load(to + k, sum);
      sum += (a * fx + b * fy) + (c * fz + d * fw);
      store<T>(sum, to + k);
    }
    for (; k < count; ++k) to[k] += (x[k] * fx + y[k] * fy) + (z[k] * fz + w[k] * fw);
  }
  for (; r < rows; ++r) add_multiple(row(r), factor(r), count, to);
}

}  // namespace lwfm
