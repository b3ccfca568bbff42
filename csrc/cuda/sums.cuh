// Sums over the threads of a warp and of a block, and sums of weighted rows of features. All add in
// an order that depends on shapes alone, so results repeat bit by bit.
#pragma once

#include <cstdint>

#include "portable.h"
#include "warp.cuh"

namespace lwfm {

// Threads of a block of the kernels that sum rows.
constexpr int kSumThreads = 128;
// Channels that one of them adds up at a time.
constexpr int kSumChannels = 4;
// Channels that a block adds up at a time.
constexpr int kSumWidth = kSumThreads * kSumChannels;

// The sum, on every lane; every lane must take part.
template <class T>
__device__ T warp_sum(T x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, distance);
  }
  return x;
}

// x . y, on every lane.
template <class T>
__device__ T warp_inner_product(const T* x, const T* y, std::int64_t count) {
  T sum{0};
  for (std::int64_t k = lane_index(); k < count; k += kWarp) sum += x[k] * y[k];
  return warp_sum(sum);
}

// The sum, on every thread of a block; `parts`, one for each of its warps, is shared
// memory.
template <class T>
__device__ T block_sum(T x, T* parts) {
  x = warp_sum(x);
  if (lane_index() == 0) parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum{0};
  for (int k = 0; k < static_cast<int>(blockDim.x) / kWarp; ++k) sum += parts[k];
  __syncthreads();  // before anyone sums again
  return sum;
}

// One row of a weighted sum: where it begins, or -1 for none.
template <class T>
struct WeightedRow {
  std::int64_t offset;
  T weight;
};

// Shared memory of a block, [kSumThreads] each.
template <class T>
struct RowList {
  std::int64_t* offsets;
  T* weights;
};

// Adds the rows row_at(0), row_at(1), ... of `values` to sums: sums[k] is of channel
// first + threadIdx.x + k kSumThreads. All threads of the block must take part.
template <class T, class RowAt>
__device__ void add_rows(const T* values, std::int64_t first, std::int64_t channels,
                         std::int64_t count, const RowAt& row_at, const RowList<T>& list,
                         T (&sums)[kSumChannels]) {
  const std::int64_t own = first + threadIdx.x;
  for (std::int64_t begin = 0; begin < count; begin += kSumThreads) {
    const int filled = static_cast<int>(count - begin < kSumThreads ? count - begin : kSumThreads);
    if (static_cast<int>(threadIdx.x) < filled) {
      const WeightedRow<T> row = row_at(begin + threadIdx.x);
      list.offsets[threadIdx.x] = row.offset;
      list.weights[threadIdx.x] = row.weight;
    }
    __syncthreads();
    for (int n = 0; n < filled; ++n) {
      if (list.offsets[n] < 0) continue;
      const T* const row = values + list.offsets[n];
#pragma unroll
      for (int k = 0; k < kSumChannels; ++k) {
        const std::int64_t c = own + k * kSumThreads;
        if (c < channels) sums[k] += list.weights[n] * row[c];
      }
    }
    __syncthreads();  // before the list is written again
  }
}

// Calls write(channel, sum) for every channel of the weighted sum of rows, as `add_rows` adds them;
// the channels are shared among the threads. All threads of the block must take part.
template <class T, class RowAt, class Write>
__device__ void sum_rows(const T* values, std::int64_t channels, std::int64_t count,
                         const RowAt& row_at, const RowList<T>& list, const Write& write) {
  for (std::int64_t first = 0; first < channels; first += kSumWidth) {
    T sums[kSumChannels] = {};
    add_rows(values, first, channels, count, row_at, list, sums);
    for (int k = 0; k < kSumChannels; ++k) {
      const std::int64_t c = first + threadIdx.x + k * kSumThreads;
      if (c < channels) write(c, sums[k]);
    }
  }
}

}  // namespace lwfm
