// The block of one (query, support) pair as the arithmetic sees it.
#pragma once

#include <cstdint>

#include "core/simd/lanes.h"

namespace lwfm {

// Strided views of the caller's memory; strides count elements.
template <class T>
struct VectorView {
  T* data;
  std::int64_t stride;

  T& operator[](std::int64_t i) const { return data[i * stride]; }
};

template <class T>
struct BlockView {
  T* data;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t row_stride;
  std::int64_t column_stride;

  T& at(std::int64_t i, std::int64_t j) const { return data[i * row_stride + j * column_stride]; }
};

// Products of one pair, and the factors that make correlations or cosines of them:
// raw[i, j] * row_scale[i] * column_scale[j].
template <class T>
struct ScaledBlock {
  BlockView<const T> raw;
  VectorView<const T> row_scale;
  VectorView<const T> column_scale;

  T at(std::int64_t i, std::int64_t j) const {
    return raw.at(i, j) * row_scale[i] * column_scale[j];
  }
};

// Where the gradients of a ScaledBlock go.
template <class T>
struct BlockGradient {
  BlockView<T> raw;
  VectorView<T> row_scale;
  VectorView<T> column_scale;
};

// to [columns, rows] becomes the transpose of from [rows, columns]; row lengths as given.
template <class T>
LWFM_INLINE void transpose(const T* from, std::int64_t rows, std::int64_t columns,
                           std::int64_t from_length, T* to, std::int64_t to_length) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) to[j * to_length + i] = from[i * from_length + j];
  }
}

}  // namespace lwfm
