// The matrix products that an episode needs, of contiguous rows of C numbers, on the calling thread
// and without a matrix library.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/simd/dispatch.h"
#include "core/simd/row_products.h"

namespace lwfm {

struct SerialProducts {
  // to [a_rows, b_rows] = a b^T
  template <class T>
  static void rows(const T* a, std::int64_t a_rows, const T* b, std::int64_t b_rows, std::int64_t C,
                   T* to) {
    vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      products_with_rows<decltype(bytes)::value, T>(
          [&](std::int64_t r) LWFM_INLINE_LAMBDA { return b + r * C; }, b_rows, {a, a_rows, C}, C,
          {to, a_rows, b_rows});
    });
  }

  // to [rows, C] = a b with a [rows, columns], its rows a_stride apart, and b [columns, C]
  template <class T>
  static void matrices(const T* a, std::int64_t a_stride, std::int64_t rows, std::int64_t columns,
                       const T* b, std::int64_t C, T* to) {
    std::fill_n(to, rows * C, T{0});
    vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      add_weighted_rows<decltype(bytes)::value, T>([&](std::int64_t r)
                                                       LWFM_INLINE_LAMBDA { return b + r * C; },
                                                   columns, {a, rows, a_stride}, C, {to, rows, C});
    });
  }

  // to [columns, C] = a^T b with a [rows, columns], its rows a_stride apart, and b [rows, C]
  template <class T>
  static void transposed(const T* a, std::int64_t a_stride, std::int64_t rows, std::int64_t columns,
                         const T* b, std::int64_t C, T* to) {
    thread_local std::vector<T> turned;  // [columns, rows]
    turned.resize(static_cast<std::size_t>(columns * rows));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t n = 0; n < columns; ++n) turned[n * rows + r] = a[r * a_stride + n];
    }
    matrices(turned.data(), rows, columns, rows, b, C, to);
  }
};

}  // namespace lwfm
