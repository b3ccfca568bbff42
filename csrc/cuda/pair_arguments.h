// What the operators on P x M blocks hand to their kernels: strided tensors in the memory of one
// device, with a block for each (query, support) pair. Plain C++, for the host and the kernels.
//
// The letters of the shape comments: P rows (support positions), M columns (query positions), and
// `count` pairs in a batch of any number of dimensions.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lwfm {

constexpr int kMaxBatchDims = 6;
// The most positions of either side that a warp can assign.
constexpr int kMaxAssignedPositions = 32;

// The batch dimensions that all tensors of a launch share.
struct BatchSizes {
  int dims;
  std::int64_t count;  // product of the sizes
  std::int64_t sizes[kMaxBatchDims];
};

// Strides count elements, as everywhere.
struct BatchStrides {
  std::int64_t of[kMaxBatchDims];
};

LWFM_HOST_DEVICE inline std::int64_t offset_of(const BatchSizes& batch, const BatchStrides& strides,
                                               std::int64_t pair) {
  std::int64_t offset = 0;
  for (int d = batch.dims - 1; d >= 0; --d) {
    offset += pair % batch.sizes[d] * strides.of[d];
    pair /= batch.sizes[d];
  }
  return offset;
}

// [..., N]
template <class T>
struct PairVectors {
  T* data;
  BatchStrides batch;
  std::int64_t stride;
};

// [..., P, M]
template <class T>
struct PairBlocks {
  T* data;
  BatchStrides batch;
  std::int64_t row_stride;
  std::int64_t column_stride;
};

// raw[i, j] * row_scale[i] * column_scale[j], as ScaledBlock of core/matching/block.h.
template <class T>
struct PairScaledBlocks {
  PairBlocks<const T> raw;
  PairVectors<const T> row_scale;
  PairVectors<const T> column_scale;
};

// Where the gradients of a PairScaledBlocks go; the scales' are contiguous.
template <class T>
struct PairGradients {
  PairBlocks<T> raw;
  T* row_scale;     // [count, P]
  T* column_scale;  // [count, M]
};

struct PairShape {
  BatchSizes batch;
  int rows;
  int columns;
};

template <class T>
struct EmbeddingWeightsArguments {
  PairShape shape;
  T temperature;
  PairScaledBlocks<T> blocks;
  T* a;  // [count, P]
  T* b;  // [count, M]
};

template <class T>
struct EmbeddingWeightsGradientArguments {
  PairShape shape;
  T temperature;
  PairScaledBlocks<T> blocks;
  PairVectors<const T> grad_a;
  PairVectors<const T> grad_b;
  PairGradients<T> to;
};

}  // namespace lwfm
