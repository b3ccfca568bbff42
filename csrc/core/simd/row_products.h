// Small matrix products with rows at any address: weighted sums of rows for several sets of
// weights at once, and inner products of rows with several vectors. Every number of bytes gives the
// same bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/simd/cache_line.h"
#include "core/simd/simd.h"

namespace lwfm {

// Vectors that are processed together, so that a row is read once for all of them: as many as
// leave room in the registers.
template <int kBytes>
constexpr int kSideBySide = kBytes / 8;

// One line of each of N vectors. A chain because compilers keep arrays of vectors in memory.
template <class T, int kBytes, int N>
struct LinesOf {
  CacheLine<T, kBytes> head;
  LinesOf<T, kBytes, N - 1> rest;

  LWFM_INLINE void read(const T* from, std::int64_t stride) {
    head.read(from);
    rest.read(from + stride, stride);
  }
  LWFM_INLINE void write(T* to, std::int64_t stride) const {
    head.write(to);
    rest.write(to + stride, stride);
  }
  LWFM_INLINE void add_multiples(const CacheLine<T, kBytes>& x, const T* factors,
                                 std::int64_t stride) {
    head.add_multiple(x, *factors);
    rest.add_multiples(x, factors + stride, stride);
  }
  LWFM_INLINE void add_products(const CacheLine<T, kBytes>& x, const T* others,
                                std::int64_t stride) {
    CacheLine<T, kBytes> other;
    other.read(others);
    head.add_product(x, other);
    rest.add_products(x, others + stride, stride);
  }
  LWFM_INLINE void sums(T* to, std::int64_t stride) const {
    *to = head.sum();
    rest.sums(to + stride, stride);
  }
};

template <class T, int kBytes>
struct LinesOf<T, kBytes, 0> {
  LWFM_INLINE void read(const T*, std::int64_t) {}
  LWFM_INLINE void write(T*, std::int64_t) const {}
  LWFM_INLINE void add_multiples(const CacheLine<T, kBytes>&, const T*, std::int64_t) {}
  LWFM_INLINE void add_products(const CacheLine<T, kBytes>&, const T*, std::int64_t) {}
  LWFM_INLINE void sums(T*, std::int64_t) const {}
};

// Vectors of `length` numbers, `stride` apart.
template <class T>
struct VectorSet {
  T* data;
  std::int64_t count, stride;

  T* at(std::int64_t n) const { return data + n * stride; }
  VectorSet from(std::int64_t n) const { return {at(n), count - n, stride}; }
};

template <int kBytes, int N, class T, class Row>
LWFM_INLINE void add_weighted_rows_of(const Row& row, std::int64_t rows, const T* weights,
                                      std::int64_t weight_stride, std::int64_t length, T* to,
                                      std::int64_t stride) {
  std::int64_t k = 0;
  for (; k + kCacheLine<T> <= length; k += kCacheLine<T>) {
    LinesOf<T, kBytes, N> sums;
    sums.read(to + k, stride);
    for (std::int64_t r = 0; r < rows; ++r) {
      CacheLine<T, kBytes> x;
      x.read(row(r) + k);
      sums.add_multiples(x, weights + r, weight_stride);
    }
    sums.write(to + k, stride);
  }
  for (; k < length; ++k) {
    for (int n = 0; n < N; ++n) {
      for (std::int64_t r = 0; r < rows; ++r) {
        to[n * stride + k] += row(r)[k] * weights[n * weight_stride + r];
      }
    }
  }
}

// to_n += sum_r weights_nr row(r), with weights [to.count, weights.stride]; N at a time, then
// fewer.
template <int kBytes, class T, int N = kSideBySide<kBytes>, class Row>
LWFM_INLINE void add_weighted_rows(const Row& row, std::int64_t rows,
                                   const VectorSet<const T>& weights, std::int64_t length,
                                   const VectorSet<T>& to) {
  std::int64_t n = 0;
  for (; n + N <= to.count; n += N) {
    add_weighted_rows_of<kBytes, N>(row, rows, weights.at(n), weights.stride, length, to.at(n),
                                    to.stride);
  }
  if constexpr (N > 1) {
    add_weighted_rows<kBytes, T, N / 2>(row, rows, weights.from(n), length, to.from(n));
  }
}

template <int kBytes, int N, class T>
LWFM_INLINE void products_with_row(const T* row, const T* vectors, std::int64_t stride,
                                   std::int64_t length, T* to, std::int64_t to_stride) {
  LinesOf<T, kBytes, N> sums;
  std::int64_t k = 0;
  for (; k + kCacheLine<T> <= length; k += kCacheLine<T>) {
    CacheLine<T, kBytes> x;
    x.read(row + k);
    sums.add_products(x, vectors + k, stride);
  }
  sums.sums(to, to_stride);
  for (; k < length; ++k) {
    for (int n = 0; n < N; ++n) to[n * to_stride] += row[k] * vectors[n * stride + k];
  }
}

// to_n[r] = row(r) . vectors_n, of `length` numbers; N at a time, then fewer.
template <int kBytes, class T, int N = kSideBySide<kBytes>, class Row>
LWFM_INLINE void products_with_rows(const Row& row, std::int64_t rows,
                                    const VectorSet<const T>& vectors, std::int64_t length,
                                    const VectorSet<T>& to) {
  std::int64_t n = 0;
  for (; n + N <= vectors.count; n += N) {
    for (std::int64_t r = 0; r < rows; ++r) {
      products_with_row<kBytes, N>(row(r), vectors.at(n), vectors.stride, length, to.at(n) + r,
                                   to.stride);
    }
  }
  if constexpr (N > 1) {
    products_with_rows<kBytes, T, N / 2>(row, rows, vectors.from(n), length, to.from(n));
  }
}

}  // namespace lwfm
