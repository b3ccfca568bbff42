// The block of a (query, support) pair as kernels see it: a group of threads for each pair, and the
// pair's block in its shared memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pair_plan.h"
#include "portable.h"

namespace lwfm {

// Rows of a block in shared memory: an odd pitch, so that a column is free of bank conflicts.
LWFM_HOST_DEVICE constexpr int pitch_of(int columns) { return columns | 1; }

// The threads that work on one pair: a warp, or a whole thread block.
template <bool kOfWarp>
struct PairGroup {
  static constexpr bool kWarp = kOfWarp;

  __device__ static int rank() { return static_cast<int>(kWarp ? threadIdx.x % 32 : threadIdx.x); }
  __device__ static int size() { return static_cast<int>(kWarp ? 32 : blockDim.x); }
  __device__ static int in_block() { return static_cast<int>(kWarp ? threadIdx.x / 32 : 0); }
  __device__ static int per_block() { return static_cast<int>(kWarp ? blockDim.x / 32 : 1); }
  __device__ static std::int64_t first() {
    return static_cast<std::int64_t>(blockIdx.x) * per_block() + in_block();
  }
  __device__ static std::int64_t step() {
    return static_cast<std::int64_t>(gridDim.x) * per_block();
  }
};

// A barrier of one group. A macro, so that every barrier has its own place in the source.
#define LWFM_SYNC(Group)        \
  do {                          \
    if constexpr (Group::kWarp) \
      __syncwarp();             \
    else                        \
      __syncthreads();          \
  } while (false)

// The block of one pair: in shared memory if kStaged, else where the caller has it.
template <class T, bool kStaged>
struct PairView {
  using Stride = std::conditional_t<kStaged, int, std::int64_t>;

  const T* raw;
  Stride row_stride;
  Stride column_stride;
  const T* row_scale;     // [P], in shared memory
  const T* column_scale;  // [M], in shared memory
  int rows;
  int columns;

  __device__ int lines() const { return rows + columns; }
  __device__ T raw_at(int i, int j) const { return raw[i * row_stride + j * column_stride]; }
  __device__ T at(int i, int j) const { return raw_at(i, j) * row_scale[i] * column_scale[j]; }
};

// A line of a block: row `line`, or column `line - P`. Entry k is where it meets line
// `crossing + k`.
template <class T, bool kStaged>
struct LineView {
  const T* raw;
  typename PairView<T, kStaged>::Stride stride;
  T scale;
  const T* crossing_scale;
  int count;
  int crossing;

  __device__ LineView(const PairView<T, kStaged>& pair, int line) {
    const bool is_row = line < pair.rows;
    const int own = is_row ? line : line - pair.rows;
    raw = pair.raw + own * (is_row ? pair.row_stride : pair.column_stride);
    stride = is_row ? pair.column_stride : pair.row_stride;
    scale = (is_row ? pair.row_scale : pair.column_scale)[own];
    crossing_scale = is_row ? pair.column_scale : pair.row_scale;
    count = is_row ? pair.columns : pair.rows;
    crossing = is_row ? pair.rows : 0;
  }

  __device__ T raw_at(int k) const { return raw[k * stride]; }
  __device__ T operator()(int k) const { return raw_at(k) * scale * crossing_scale[k]; }
};

// Copies a vector of one pair into shared memory.
template <class Group, class T>
__device__ void stage(const PairVectors<const T>& from, const BatchSizes& batch, std::int64_t pair,
                      int count, T* to) {
  const std::int64_t offset = offset_of(batch, from.batch, pair);
  for (int k = Group::rank(); k < count; k += Group::size()) {
    to[k] = from.data[offset + k * from.stride];
  }
}

// Brings a pair's scales and, if kStaged, its block into shared memory at `scratch`, which holds
// pair_scratch numbers. Not visible to the group before a barrier.
template <class Group, class T, bool kStaged>
__device__ PairView<T, kStaged> stage(const PairScaledBlocks<T>& from, const PairShape& shape,
                                      std::int64_t pair, T* scratch) {
  const int P = shape.rows, M = shape.columns;
  stage<Group, T>(from.row_scale, shape.batch, pair, P, scratch);
  stage<Group, T>(from.column_scale, shape.batch, pair, M, scratch + P);
  const T* raw = from.raw.data + offset_of(shape.batch, from.raw.batch, pair);
  if constexpr (kStaged) {
    T* block = scratch + P + M;
    for (int e = Group::rank(); e < P * M; e += Group::size()) {
      const int i = e / M, j = e % M;
      block[i * pitch_of(M) + j] = raw[i * from.raw.row_stride + j * from.raw.column_stride];
    }
    return {block, pitch_of(M), 1, scratch, scratch + P, P, M};
  } else {
    return {raw, from.raw.row_stride, from.raw.column_stride, scratch, scratch + P, P, M};
  }
}

// Numbers in shared memory that `stage` takes for a pair.
LWFM_HOST_DEVICE constexpr int pair_scratch(int rows, int columns, bool staged) {
  return rows + columns + (staged ? rows * pitch_of(columns) : 0);
}

}  // namespace lwfm
