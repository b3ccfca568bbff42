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

// to[n] = x . vectors[n], four at a time: x is read once for them.
template <int kBytes, class T>
LWFM_INLINE void products_with_vectors(const T* x, const T* const* vectors, std::int64_t number,
                                       std::int64_t count, T* to) {
  const auto add = [&](std::int64_t n, const CacheLine<T, kBytes>& a, std::int64_t k,
                       CacheLine<T, kBytes>& sum) LWFM_INLINE_LAMBDA {
    CacheLine<T, kBytes> b;
    b.read(vectors[n] + k);
    sum.add_product(a, b);
  };
  const std::int64_t whole = count / kCacheLine<T> * kCacheLine<T>;
  std::int64_t n = 0;
  for (; n + 4 <= number; n += 4) {
    CacheLine<T, kBytes> first, second, third, fourth, a;
    for (std::int64_t k = 0; k < whole; k += kCacheLine<T>) {
      a.read(x + k);
      add(n, a, k, first);
      add(n + 1, a, k, second);
      add(n + 2, a, k, third);
      add(n + 3, a, k, fourth);
    }
    to[n] = first.sum();
    to[n + 1] = second.sum();
    to[n + 2] = third.sum();
    to[n + 3] = fourth.sum();
  }
  for (; n < number; ++n) {
    CacheLine<T, kBytes> sum, a;
    for (std::int64_t k = 0; k < whole; k += kCacheLine<T>) {
      a.read(x + k);
      add(n, a, k, sum);
    }
    to[n] = sum.sum();
  }
  for (n = 0; n < number; ++n) {
    for (std::int64_t k = whole; k < count; ++k) to[n] += x[k] * vectors[n][k];
  }
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
