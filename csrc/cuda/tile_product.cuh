// Inner products of the positions of some support images with those of some queries: one tile of
// R, channels streamed through shared memory, by the tensor cores where T is float and there are
// any.
#pragma once

#include <cstdint>
#include <type_traits>

#include "portable.h"

namespace lwfm {

// How float32 numbers are multiplied by tensor cores: as sums of two in TF32, which is as accurate
// as float32, or rounded to TF32.
enum class TileProducts { exact, tf32 };

// The tile: kRowCount positions of support images, kColumnCount of queries.
template <class Number, int kRowCount, int kColumnCount, TileProducts kHow>
struct Tile {
  using T = Number;
  static constexpr TileProducts kProducts = kHow;
  static constexpr int kRows = kRowCount, kColumns = kColumnCount, kPositions = kRows + kColumns;
  static constexpr int kThreads = 256, kWarps = kThreads / 32;
  static constexpr int kMinBlocks = sizeof(T) == 4 ? 2 : 1;  // at once on a multiprocessor
  static constexpr int kSlices = kThreads / kColumns;        // threads of a column of the product
  static constexpr int kVector = 16 / sizeof(T);             // numbers that are read at once
  // Channels of a step: as many as there are registers for.
  static constexpr int kDepth = sizeof(T) == 4 && kColumns < 64 ? 32 : 16;
  static constexpr int kPitch = kDepth + kVector;  // of a position in a buffer
  static constexpr int kBuffer = kPositions * kPitch;
  static constexpr int kLoads = kPositions * kDepth / kVector / kThreads;  // of a thread in a step
  static constexpr int kRow = kColumns + 4;                                // of the product
  static constexpr bool kTensorCores = LWFM_TENSOR_CORES && std::is_same_v<T, float>;
  static_assert(kPositions * kDepth % (kVector * kThreads) == 0);
  static_assert(kRows % 16 == 0 && kColumns % 16 == 0 && kPositions <= kThreads);
};

// Shared memory of a block that multiplies. The product takes the place of the buffers, and leaves
// kScratch numbers behind it for whoever works on it.
template <class Tile, int kScratch>
struct TileMemory {
  using T = typename Tile::T;
  static constexpr int kProduct = Tile::kRows * Tile::kRow;
  static constexpr int kNumbers =
      2 * Tile::kBuffer > kProduct + kScratch ? 2 * Tile::kBuffer : kProduct + kScratch;

  alignas(32) T numbers[kNumbers];
  std::int64_t offsets[Tile::kPositions];  // of channel 0 of each position; -1 outside of images

  __device__ T* buffer(int step) { return numbers + step % 2 * Tile::kBuffer; }
  __device__ T* scratch() { return numbers + kProduct; }
};

// Numbers that are read at once.
template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Several {
  T x[kCount];
};

// All channels of some positions.
template <class T>
struct PositionChannels {
  const T* data;
  std::int64_t channels;
  bool aligned;  // whether they can be read in vectors of 16 bytes

  __device__ PositionChannels(const T* first, std::int64_t count)
      : data(first),
        channels(count),
        aligned(reinterpret_cast<std::uintptr_t>(first) % 16 == 0 &&
                count * static_cast<std::int64_t>(sizeof(T)) % 16 == 0) {}

  template <int kCount>
  __device__ Several<T, kCount> read(std::int64_t offset, std::int64_t channel) const {
    Several<T, kCount> to;
    if (aligned && offset >= 0 && channel < channels) {
      return *reinterpret_cast<const Several<T, kCount>*>(data + offset + channel);
    }
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      to.x[n] = offset >= 0 && channel + n < channels ? data[offset + channel + n] : T{0};
    }
    return to;
  }
};

// What one thread moves of a step: vectors of neighboring channels, in neighboring threads.
template <class Tile>
struct StepLoads {
  using Vector = Several<typename Tile::T, Tile::kVector>;
  Vector loaded[Tile::kLoads];

  static __device__ int position(int n) {
    return (static_cast<int>(threadIdx.x) + n * Tile::kThreads) / (Tile::kDepth / Tile::kVector);
  }
  static __device__ int channel(int n) {
    return (static_cast<int>(threadIdx.x) + n * Tile::kThreads) % (Tile::kDepth / Tile::kVector) *
           Tile::kVector;
  }

  __device__ void load(const PositionChannels<typename Tile::T>& from, const std::int64_t* offsets,
                       int step) {
#pragma unroll
    for (int n = 0; n < Tile::kLoads; ++n) {
      const std::int64_t first = std::int64_t{step} * Tile::kDepth + channel(n);
      loaded[n] = from.template read<Tile::kVector>(offsets[position(n)], first);
    }
  }
  __device__ void store(typename Tile::T* buffer) const {
#pragma unroll
    for (int n = 0; n < Tile::kLoads; ++n) {
      *reinterpret_cast<Vector*>(buffer + position(n) * Tile::kPitch + channel(n)) = loaded[n];
    }
  }
};

// Sums of products in the registers of a thread, of every sixteenth row and column.
template <class Tile>
class ThreadSums {
  using T = typename Tile::T;
  static constexpr int kSide = 16, kHeight = Tile::kRows / kSide, kWidth = Tile::kColumns / kSide;
  static_assert(kSide * kSide == Tile::kThreads);

 public:
  // Of the channels of one step.
  __device__ void add(const T* buffer) {
    using Vector = Several<T, Tile::kVector>;
    const T* const rows = buffer + row(0) * Tile::kPitch;
    const T* const columns = buffer + (Tile::kRows + column(0)) * Tile::kPitch;
#pragma unroll 1
    for (int c = 0; c < Tile::kDepth; c += Tile::kVector) {
      Vector x[kHeight], y[kWidth];
#pragma unroll
      for (int i = 0; i < kHeight; ++i) x[i] = vector_at<Vector>(rows, i, c);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) y[j] = vector_at<Vector>(columns, j, c);
#pragma unroll
      for (int n = 0; n < Tile::kVector; ++n) {
#pragma unroll
        for (int i = 0; i < kHeight; ++i) {
#pragma unroll
          for (int j = 0; j < kWidth; ++j) sums_[i][j] += x[i].x[n] * y[j].x[n];
        }
      }
    }
  }

  __device__ void write(T* to) const {
#pragma unroll
    for (int i = 0; i < kHeight; ++i) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) to[row(i) * Tile::kRow + column(j)] = sums_[i][j];
    }
  }

 private:
  static __device__ int row(int i) { return static_cast<int>(threadIdx.x) / kSide + i * kSide; }
  static __device__ int column(int j) { return static_cast<int>(threadIdx.x) % kSide + j * kSide; }

  template <class Vector>
  static __device__ Vector vector_at(const T* first, int n, int c) {
    return *reinterpret_cast<const Vector*>(first + n * kSide * Tile::kPitch + c);
  }

  T sums_[kHeight][kWidth] = {};
};

#if LWFM_TENSOR_CORES

// A matrix of 16 positions and 8 channels, or its transpose, as a sum of two in TF32.
template <class Fragment>
struct SplitFragment {
  Fragment large, small;

  __device__ void load(const float* from, unsigned pitch, bool both) {
    nvcuda::wmma::load_matrix_sync(large, from, pitch);
#pragma unroll
    for (int n = 0; n < Fragment::num_elements; ++n) {
      const float x = large.x[n];
      large.x[n] = nvcuda::wmma::__float_to_tf32(x);
      if (both) small.x[n] = nvcuda::wmma::__float_to_tf32(x - large.x[n]);
    }
  }
};

// Sums of products by tensor cores, 16 rows of a few times 16 columns to a warp. They cut off what
// a float32 does not hold, so the sums of each step are added up apart, rounded as usual.
template <class Tile>
class FragmentSums {
  template <class Use, class Layout>
  using Operand = nvcuda::wmma::fragment<Use, 16, 16, 8, nvcuda::wmma::precision::tf32, Layout>;
  using Sums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 8, float>;
  static constexpr int kDown = Tile::kRows / 16,
                       kOwn = kDown * (Tile::kColumns / 16) / Tile::kWarps;
  static constexpr bool kExact = Tile::kProducts == TileProducts::exact;
  static_assert(kOwn * Tile::kWarps == kDown * (Tile::kColumns / 16));

 public:
  __device__ FragmentSums() {
    for (Sums& sum : sums_) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }

  __device__ void add(const float* buffer) {
    const float* const rows = buffer + row() * Tile::kPitch;
    const float* const columns = buffer + (Tile::kRows + column()) * Tile::kPitch;
    Sums of_step[kOwn];
    for (Sums& sum : of_step) nvcuda::wmma::fill_fragment(sum, 0.0f);
#pragma unroll 1
    for (int c = 0; c < Tile::kDepth; c += 8) {
      SplitFragment<Operand<nvcuda::wmma::matrix_a, nvcuda::wmma::row_major>> a;
      a.load(rows + c, Tile::kPitch, kExact);
#pragma unroll
      for (int n = 0; n < kOwn; ++n) {
        SplitFragment<Operand<nvcuda::wmma::matrix_b, nvcuda::wmma::col_major>> b;
        b.load(columns + n * 16 * Tile::kPitch + c, Tile::kPitch, kExact);
        if constexpr (kExact) {
          nvcuda::wmma::mma_sync(of_step[n], a.small, b.large, of_step[n]);
          nvcuda::wmma::mma_sync(of_step[n], a.large, b.small, of_step[n]);
        }
        nvcuda::wmma::mma_sync(of_step[n], a.large, b.large, of_step[n]);
      }
    }
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
#pragma unroll
      for (int k = 0; k < Sums::num_elements; ++k) sums_[n].x[k] += of_step[n].x[k];
    }
  }

  __device__ void write(float* to) const {
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      nvcuda::wmma::store_matrix_sync(to + row() * Tile::kRow + column() + n * 16, sums_[n],
                                      Tile::kRow, nvcuda::wmma::mem_row_major);
    }
  }

 private:
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / 32; }
  static __device__ int row() { return warp() % kDown * 16; }
  static __device__ int column() { return warp() / kDown * kOwn * 16; }

  Sums sums_[kOwn];
};

#else

template <class Tile>
class FragmentSums;

#endif

// Leaves the products of the located positions in memory.numbers, rows Tile::kRow apart. Begins and
// ends with a barrier: what was there may still be in use before, and the product is visible after.
template <class Tile, int kScratch>
__device__ void multiply_tile(const PositionChannels<typename Tile::T>& from,
                              TileMemory<Tile, kScratch>& memory) {
  std::conditional_t<Tile::kTensorCores, FragmentSums<Tile>, ThreadSums<Tile>> sums;
  StepLoads<Tile> loads;
  __syncthreads();
  loads.load(from, memory.offsets, 0);
  loads.store(memory.buffer(0));
  __syncthreads();
  const auto steps = static_cast<int>((from.channels + Tile::kDepth - 1) / Tile::kDepth);
  for (int step = 0; step < steps; ++step) {
    const int next = step + 1;
    if (next < steps) loads.load(from, memory.offsets, next);
    sums.add(memory.buffer(step));
    if (next < steps) loads.store(memory.buffer(next));
    __syncthreads();
  }
  sums.write(memory.numbers);
  __syncthreads();
}

}  // namespace lwfm
