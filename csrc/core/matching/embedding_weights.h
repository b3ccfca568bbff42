// Layer-wise embedding on the block of one pair, forward and backward:
//
//   corr_ij = R_ij row_scale_i column_scale_j
//   a_i = sum_j softmax_i( g_i(corr) / t ),   b_j = sum_i softmax_j( g_j(corr) / t )
//
// g_d standardizes along d. "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot
// Learning", arXiv 2411.06363. Deterministic, and the same on every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/matching/block.h"
#include "core/matching/column_softmax.h"
#include "core/simd/simd.h"
#if LWFM_X86
#include "core/simd/simd_avx2.h"
#endif

namespace lwfm {

// The gradients of what `weigh` writes.
template <class T>
struct WeightGradients {
  VectorView<const T> a;
  VectorView<const T> b;
};

// Memory of one thread and the arithmetic in it.
template <class T>
class EmbeddingWeights {
 public:
  // Writes a [rows] and b [columns].
  LWFM_INLINE void forward(const ScaledBlock<T>& block, T temperature, T* a, T* b) {
    read(block, temperature);
    over_rows_.row_sums(a);
    over_columns_.row_sums(b);
  }

  // From the gradients of a and b; recomputes the forward pass.
  LWFM_INLINE void backward(const ScaledBlock<T>& block, T temperature,
                            const WeightGradients<T>& from, const BlockGradient<T>& to) {
    read(block, temperature);
    for (std::int64_t i = 0; i < rows_; ++i) row_[i] = from.a[i];
    over_rows_.backward(row_.data());
    for (std::int64_t j = 0; j < columns_; ++j) column_[j] = from.b[j];
    over_columns_.backward(column_.data());
    // Of the correlations, the sum of both directions; X is not needed any more.
    transpose(over_columns_.soft(), columns_, rows_, over_columns_.length(), over_rows_.x(),
              length_);
    write(block, to);
  }

 private:
  void reserve(std::int64_t rows, std::int64_t columns) {
    if (rows == rows_ && columns == columns_) return;
    rows_ = rows;
    columns_ = columns;
    length_ = padded<T>(columns);
    over_rows_.reserve(rows, columns);
    over_columns_.reserve(columns, rows);
    raw_.assign(static_cast<std::size_t>(rows * length_), T{0});
    for (auto* column : {&column_, &scale_}) {
      column->assign(static_cast<std::size_t>(length_), T{0});
    }
    row_.resize(static_cast<std::size_t>(rows));
  }

  LWFM_INLINE void read(const ScaledBlock<T>& block, T temperature) {
    reserve(block.raw.rows, block.raw.columns);
    for (std::int64_t j = 0; j < columns_; ++j) scale_[j] = block.column_scale[j];
    for (std::int64_t i = 0; i < rows_; ++i) {
      T* raw = raw_.data() + i * length_;
      for (std::int64_t j = 0; j < columns_; ++j) raw[j] = block.raw.at(i, j);
      const T factor = block.row_scale[i];
      T* x = over_rows_.x() + i * length_;
      for (std::int64_t j = 0; j < columns_; ++j) x[j] = raw[j] * factor * scale_[j];
    }
    transpose(over_rows_.x(), rows_, columns_, length_, over_columns_.x(), over_columns_.length());
    // What a NaN or an infinity of the block before may have left there.
    clear_padding(raw_.data(), rows_, columns_, length_);
    clear_padding(over_rows_.x(), rows_, columns_, length_);
    clear_padding(over_columns_.x(), columns_, rows_, over_columns_.length());
    over_rows_.forward(temperature);
    over_columns_.forward(temperature);
  }

  static LWFM_INLINE void clear_padding(T* block, std::int64_t rows, std::int64_t columns,
                                        std::int64_t length) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = columns; j < length; ++j) block[i * length + j] = T{0};
    }
  }

  LWFM_INLINE void write(const ScaledBlock<T>& block, const BlockGradient<T>& to) {
    T* grad_scale = column_.data();
    std::fill_n(grad_scale, length_, T{0});
    for (std::int64_t i = 0; i < rows_; ++i) {
      T* raw = raw_.data() + i * length_;
      const T* one = over_rows_.soft() + i * length_;
      const T* other = over_rows_.x() + i * length_;
      const T factor = block.row_scale[i];
      Lanes<T> sum{}, x, y, r, s, c;
      for (std::int64_t j = 0; j < length_; j += kLanes<T>) {
        load(one + j, x);
        load(other + j, y);
        load(raw + j, r);
        load(scale_.data() + j, s);
        load(grad_scale + j, c);
        x += y;
        c += x * r * factor;
        store<T>(c, grad_scale + j);
        x *= s;
        sum += x * r;
        x *= factor;
        store<T>(x, raw + j);
      }
      to.row_scale[i] = sum_of_lanes<T>(sum);
      for (std::int64_t j = 0; j < columns_; ++j) to.raw.at(i, j) = raw[j];
    }
    for (std::int64_t j = 0; j < columns_; ++j) to.column_scale[j] = grad_scale[j];
  }

  std::int64_t rows_ = 0, columns_ = 0, length_ = 0;
  ColumnSoftmax<T> over_rows_;     // of corr
  ColumnSoftmax<T> over_columns_;  // of its transpose
  std::vector<T> raw_, scale_, column_, row_;
};

#if LWFM_X86
template <class T>
LWFM_AVX2 void weigh_avx2(EmbeddingWeights<T>& workspace, const ScaledBlock<T>& block,
                          T temperature, T* a, T* b) {
  workspace.forward(block, temperature, a, b);
}

template <class T>
LWFM_AVX2 void weigh_backward_avx2(EmbeddingWeights<T>& workspace, const ScaledBlock<T>& block,
                                   T temperature, const WeightGradients<T>& from,
                                   const BlockGradient<T>& to) {
  workspace.backward(block, temperature, from, to);
}
#endif

// Writes a [rows] and b [columns] of one block.
template <class T>
void weigh(EmbeddingWeights<T>& workspace, const ScaledBlock<T>& block, T temperature, T* a, T* b,
           SimdLevel level = simd_level()) {
#if LWFM_X86
  if (level >= SimdLevel::avx2) return weigh_avx2(workspace, block, temperature, a, b);
#endif
  (void)level;
  workspace.forward(block, temperature, a, b);
}

// Writes the gradient of the block from those of its a and b.
template <class T>
void weigh_backward(EmbeddingWeights<T>& workspace, const ScaledBlock<T>& block, T temperature,
                    const WeightGradients<T>& from, const BlockGradient<T>& to,
                    SimdLevel level = simd_level()) {
#if LWFM_X86
  if (level >= SimdLevel::avx2) {
    return weigh_backward_avx2(workspace, block, temperature, from, to);
  }
#endif
  (void)level;
  workspace.backward(block, temperature, from, to);
}

}  // namespace lwfm
