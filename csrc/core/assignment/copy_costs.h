// Copies of a cost matrix in the form that the solver reads: row by row, integers as float64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/assignment/cost_matrix.h"
#include "core/interruption.h"
#include "core/simd/simd.h"
#if LWFM_X86
#include "core/simd/simd_avx2.h"
#endif

namespace lwfm {

// Fills `to` [rows, row_length] with value(entry). Where the columns are not adjacent, in tiles: a
// cache line that is read is used up before it is lost.
template <class T, class To, class Value>
LWFM_INLINE void rewrite(const CostMatrix<T>& cost, To* to, std::int64_t row_length, Watch& watch,
                         const Value& value) {
  if (cost.column_stride == 1) {
    for (std::int64_t i = 0; i < cost.rows; ++i) {
      const T* from = cost.data + i * cost.row_stride;
      To* line = to + i * row_length;
      for (std::int64_t j = 0; j < cost.columns; ++j) line[j] = value(from[j]);
      watch.count(cost.columns);
    }
    return;
  }
  constexpr std::int64_t kRows = 16, kColumns = 16;
  for (std::int64_t top = 0; top < cost.rows; top += kRows) {
    const std::int64_t bottom = std::min(top + kRows, cost.rows);
    for (std::int64_t left = 0; left < cost.columns; left += kColumns) {
      const std::int64_t right = std::min(left + kColumns, cost.columns);
      for (std::int64_t i = top; i < bottom; ++i) {
        for (std::int64_t j = left; j < right; ++j) to[i * row_length + j] = value(cost.at(i, j));
      }
      watch.count(kRows * kColumns);
    }
  }
}

#if LWFM_X86
// Fills `to` [rows, columns] with the entries of a matrix whose rows are adjacent, by blocks that
// are transposed in registers: every cache line of `to` is written at once.
template <class T>
LWFM_AVX2 void transpose(const CostMatrix<T>& cost, T* to, Watch& watch) {
  constexpr std::int64_t kBlock = 32 / sizeof(T), kLine = 2 * kBlock;
  const std::int64_t whole_rows = cost.rows / kBlock * kBlock;
  const std::int64_t whole_columns = cost.columns / kLine * kLine;
  const auto copy = [&](std::int64_t top, std::int64_t left, std::int64_t right) {
    for (std::int64_t i = top; i < cost.rows; ++i) {
      for (std::int64_t j = left; j < right; ++j) to[i * cost.columns + j] = cost.at(i, j);
    }
  };
  for (std::int64_t top = 0; top < whole_rows; top += kLine) {
    const std::int64_t bottom = std::min(top + kLine, whole_rows);
    for (std::int64_t j = 0; j < whole_columns; j += kLine) {
      for (std::int64_t i = top; i < bottom; i += kBlock) {
        const T* from = &cost.data[i + j * cost.column_stride];
        T* block = &to[i * cost.columns + j];
        transpose_block(from, cost.column_stride, block, cost.columns);
        transpose_block(from + kBlock * cost.column_stride, cost.column_stride, block + kBlock,
                        cost.columns);
      }
    }
    watch.count(cost.columns * kLine);
  }
  copy(whole_rows, 0, whole_columns);
  copy(0, whole_columns, cost.columns);
  watch.count(cost.rows * kLine);
}
#endif

// Fills `to` [rows, columns] with the entries of a floating-point matrix.
template <class T>
void copy_by_row(const CostMatrix<T>& cost, T* to, Watch& watch) {
#if LWFM_X86
  if (cost.row_stride == 1 && simd_level() >= SimdLevel::avx2) return transpose(cost, to, watch);
#endif
  rewrite(cost, to, cost.columns, watch, [](T entry) { return entry; });
}

// The smallest entry of an integer matrix.
template <class T>
T smallest_entry(const CostMatrix<T>& cost, Watch& watch) {
  T smallest = std::numeric_limits<T>::max();
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    for (std::int64_t j = 0; j < cost.columns; ++j) smallest = std::min(smallest, cost.at(i, j));
    watch.count(cost.columns);
  }
  return smallest;
}

// Fills `to` with the differences of 64-bit integers to `base` if all are below 2^51, and returns
// whether they are. They are put into the mantissa of a float64 by hand: before AVX-512, processors
// convert such integers one by one.
template <class T>
bool rewrite_near(const CostMatrix<T>& cost, T base, double* to, Watch& watch) {
  constexpr std::uint64_t kHalf = std::uint64_t{1} << 51;
  constexpr std::uint64_t kExponent = std::uint64_t{0x433} << 52;  // of 2^52, unit 1
  const std::uint64_t shift = kHalf - static_cast<std::uint64_t>(base);
  std::uint64_t seen = 0;
  rewrite(cost, to, cost.columns, watch, [&](T entry) {
    const std::uint64_t mantissa = static_cast<std::uint64_t>(entry) + shift;  // modulo 2^64
    seen |= mantissa;
    const std::uint64_t bits = mantissa | kExponent;
    double number;
    std::memcpy(&number, &bits, sizeof number);
    return number - (0x1p52 + 0x1p51);
  });
  return seen >> 52 == 0;
}

// Fills `to` [rows, columns] with the entries of an integer matrix less some number, which is
// returned. The differences are exact as long as the entries span less than 2^53, however large
// they are.
template <class T>
double rewrite_integers(const CostMatrix<T>& cost, double* to, Watch& watch) {
  if constexpr (sizeof(T) <= 4) {
    rewrite(cost, to, cost.columns, watch, [](T entry) { return static_cast<double>(entry); });
    return 0.0;
  } else {
    if (cost.rows == 0 || cost.columns == 0) return 0.0;
    T base = cost.at(0, 0);
    if (!rewrite_near(cost, base, to, watch)) {
      base = smallest_entry(cost, watch);
      // Unsigned subtraction is exact for every pair with entry >= base.
      const auto from = static_cast<std::uint64_t>(base);
      rewrite(cost, to, cost.columns, watch, [from](T entry) {
        return static_cast<double>(static_cast<std::uint64_t>(entry) - from);
      });
    }
    return static_cast<double>(base);
  }
}

}  // namespace lwfm
