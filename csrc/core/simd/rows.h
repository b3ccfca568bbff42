// Sums and products of rows of numbers, compiled for every instruction set with what calls them,
// kBytes of a vector at a time. Every number of bytes gives the same bits.
#pragma once

#include <cstdint>

#include "core/simd/cache_line.h"
#include "core/simd/dispatch.h"

namespace lwfm {

// Several sums are accumulated side by side: an addition has more latency than a product.
template <int kBytes, class T>
LWFM_INLINE T inner_product(const T* x, const T* y, std::int64_t count) {
  CacheLine<T, kBytes> sums, second, third, fourth, a, b;
  std::int64_t k = 0;
  const auto add = [&](std::int64_t at, CacheLine<T, kBytes>& to) LWFM_INLINE_LAMBDA {
    a.read(x + at);
    b.read(y + at);
    to.add_product(a, b);
  };
  for (; k + 4 * kCacheLine<T> <= count; k += 4 * kCacheLine<T>) {
    add(k, sums);
    add(k + kCacheLine<T>, second);
    add(k + 2 * kCacheLine<T>, third);
    add(k + 3 * kCacheLine<T>, fourth);
  }
  for (; k + kCacheLine<T> <= count; k += kCacheLine<T>) add(k, sums);
  sums.add(second);
  third.add(fourth);
  sums.add(third);
  T sum = sums.sum();
  for (; k < count; ++k) sum += x[k] * y[k];
  return sum;
}

// to += factor * x
template <int kBytes, class T>
LWFM_INLINE void add_multiple(const T* x, T factor, std::int64_t count, T* to) {
  CacheLine<T, kBytes> a, b;
  std::int64_t k = 0;
  for (; k + kCacheLine<T> <= count; k += kCacheLine<T>) {
    a.read(x + k);
    b.read(to + k);
    b.add_multiple(a, factor);
    b.write(to + k);
  }
  for (; k < count; ++k) to[k] += factor * x[k];
}

}  // namespace lwfm
