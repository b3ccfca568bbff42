// Inner products of the positions of some support images with those of some query images: one
// tile of the correlation matrix, channels streamed through shared memory.
#pragma once

#include <cstdint>

#include "correlation_arguments.h"
#include "portable.h"

namespace lwfm {

__device__ inline float number_of(float x) { return x; }
__device__ inline double number_of(double x) { return x; }
__device__ inline float number_of(__half x) { return __half2float(x); }
__device__ inline float number_of(__nv_bfloat16 x) { return __bfloat162float(x); }

// The tile: kSize x kSize products of T, kMicro x kMicro of them to a thread, in steps of kDepth
// channels.
template <class Number, int kTileSize, int kMicroSize>
struct Tile {
  using T = Number;
  static constexpr int kSize = kTileSize;
  static constexpr int kMicro = kMicroSize;
  static constexpr int kDepth = 16;
  static constexpr int kThreads = (kSize / kMicro) * (kSize / kMicro);
  static constexpr int kMinBlocks = kThreads < 128 ? 4 : 2;  // at once on a multiprocessor
  static constexpr int kLoads = kDepth * kSize / kThreads;   // of one thread and side, in a step
  static constexpr int kPitch = kSize + 4;  // of a channel in a buffer: whole vectors of four
  static constexpr int kRow = kSize + 1;    // of the product: an odd pitch
  static constexpr int kBuffer = kDepth * kPitch;
  static_assert(kThreads % kSize == 0 && kThreads >= 2 * kSize && kThreads % kDepth == 0);
};

// What a block holds in shared memory while it multiplies. The product takes the place of the
// buffers.
template <class Tile>
struct TileMemory {
  using T = typename Tile::T;
  static constexpr int kBuffers = 4 * Tile::kBuffer;  // two steps of two sides
  static constexpr int kProduct = Tile::kSize * Tile::kRow;
  static constexpr int kCount = kBuffers > kProduct ? kBuffers : kProduct;

  alignas(16) T numbers[kCount];
  std::int64_t offsets[2][Tile::kSize];  // of each position; -1 outside the images of the tile
  T squares[2][Tile::kSize];             // |x|^2 of each position

  __device__ T* buffer(int step, int side) {
    return numbers + (2 * (step % 2) + side) * Tile::kBuffer;
  }
};

// Writes the addresses of the positions of one side: `images` of them from `first` on.
template <class Tile, class In>
__device__ void locate(const Images<In>& side, std::int64_t first, int images,
                       std::int64_t* offsets) {
  for (int r = static_cast<int>(threadIdx.x); r < Tile::kSize; r += Tile::kThreads) {
    const std::int64_t image = first + r / side.positions;
    const bool inside = r < images * side.positions && image < side.count;
    offsets[r] =
        inside ? image * side.image_stride + r % side.positions * side.position_stride : -1;
  }
}

// The place of load n of this thread in a step: neighboring threads read what is adjacent in
// memory, channels or positions.
template <class Tile>
struct LoadPlace {
  int row;
  int channel;

  __device__ LoadPlace(bool channels_adjacent, int n) {
    const int e = static_cast<int>(threadIdx.x) + n * Tile::kThreads;
    row = channels_adjacent ? e / Tile::kDepth : e % Tile::kSize;
    channel = channels_adjacent ? e % Tile::kDepth : e / Tile::kSize;
  }
};

template <class Tile, class In>
__device__ void load_step(const Images<In>& side, const std::int64_t* offsets, int begin,
                          typename Tile::T* loaded) {
#pragma unroll
  for (int n = 0; n < Tile::kLoads; ++n) {
    const LoadPlace<Tile> place(side.channel_stride == 1, n);
    const std::int64_t offset = offsets[place.row];
    const int channel = begin + place.channel;
    const bool inside = offset >= 0 && channel < side.channels;
    loaded[n] =
        inside ? number_of(side.data[offset + channel * side.channel_stride]) : typename Tile::T{0};
  }
}

template <class Tile, class In>
__device__ void store_step(const Images<In>& side, const typename Tile::T* loaded,
                           typename Tile::T* buffer) {
#pragma unroll
  for (int n = 0; n < Tile::kLoads; ++n) {
    const LoadPlace<Tile> place(side.channel_stride == 1, n);
    buffer[place.channel * Tile::kPitch + place.row] = loaded[n];
  }
}

// Read at once where the hardware can: up to 16 bytes.
template <class T, int kCount>
struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Several {
  T x[kCount];
};

// Adds the products of one step's channels to this thread's entries, and the squares of the
// positions that this thread is answerable for.
template <class Tile>
__device__ void multiply_step(const typename Tile::T* support, const typename Tile::T* query,
                              typename Tile::T (&sums)[Tile::kMicro][Tile::kMicro],
                              typename Tile::T& square) {
  using Vector = Several<typename Tile::T, Tile::kMicro>;
  constexpr int kAcross = Tile::kSize / Tile::kMicro;
  const int t = static_cast<int>(threadIdx.x);
  const int top = t / kAcross * Tile::kMicro, left = t % kAcross * Tile::kMicro;
#pragma unroll
  for (int c = 0; c < Tile::kDepth; ++c) {
    const Vector s = *reinterpret_cast<const Vector*>(support + c * Tile::kPitch + top);
    const Vector q = *reinterpret_cast<const Vector*>(query + c * Tile::kPitch + left);
#pragma unroll
    for (int i = 0; i < Tile::kMicro; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kMicro; ++j) sums[i][j] += s.x[i] * q.x[j];
    }
  }
  if (t < 2 * Tile::kSize) {
    const typename Tile::T* own = t < Tile::kSize ? support + t : query + (t - Tile::kSize);
    for (int c = 0; c < Tile::kDepth; ++c) {
      const typename Tile::T x = own[c * Tile::kPitch];
      square += x * x;
    }
  }
}

// Leaves the products of the located positions in memory.numbers, rows kRow apart, and their
// squares. Begins and ends with a barrier: what stood there may still be in use before, and is
// visible after.
template <class Tile, class In>
__device__ void multiply_tile(const Images<In>& support, const Images<In>& query,
                              TileMemory<Tile>& memory) {
  using T = typename Tile::T;
  constexpr int kAcross = Tile::kSize / Tile::kMicro;
  T sums[Tile::kMicro][Tile::kMicro] = {}, square{0};
  T support_loads[Tile::kLoads], query_loads[Tile::kLoads];
  __syncthreads();
  load_step<Tile>(support, memory.offsets[0], 0, support_loads);
  load_step<Tile>(query, memory.offsets[1], 0, query_loads);
  store_step<Tile>(support, support_loads, memory.buffer(0, 0));
  store_step<Tile>(query, query_loads, memory.buffer(0, 1));
  __syncthreads();
  const int steps = (support.channels + Tile::kDepth - 1) / Tile::kDepth;
  for (int step = 0; step < steps; ++step) {
    const int next = step + 1;
    if (next < steps) {
      load_step<Tile>(support, memory.offsets[0], next * Tile::kDepth, support_loads);
      load_step<Tile>(query, memory.offsets[1], next * Tile::kDepth, query_loads);
    }
    multiply_step<Tile>(memory.buffer(step, 0), memory.buffer(step, 1), sums, square);
    if (next < steps) {
      store_step<Tile>(support, support_loads, memory.buffer(next, 0));
      store_step<Tile>(query, query_loads, memory.buffer(next, 1));
    }
    __syncthreads();
  }
  const int t = static_cast<int>(threadIdx.x);
  const int top = t / kAcross * Tile::kMicro, left = t % kAcross * Tile::kMicro;
#pragma unroll
  for (int i = 0; i < Tile::kMicro; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kMicro; ++j) {
      memory.numbers[(top + i) * Tile::kRow + left + j] = sums[i][j];
    }
  }
  if (t < 2 * Tile::kSize) memory.squares[t / Tile::kSize][t % Tile::kSize] = square;
  __syncthreads();
}

}  // namespace lwfm
