// The launch of the fused kernel on all pairs of one layer; see pair_kernels.h. Each type of
// features has a source of its own, correlation_<type>.cu: together they compile for minutes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "correlation.cuh"
#include "pair_kernels.h"

namespace lwfm {

template <class In, class T>
std::int64_t tiles_of(const CorrelationArguments<In, T>& arguments, int size) {
  const TilePlace place(arguments, size, 0);
  return (arguments.support.count + place.supports - 1) / place.supports *
         ((arguments.query.count + place.queries - 1) / place.queries);
}

template <class Tile, class In>
int launch_tiles(const CorrelationArguments<In, typename Tile::T>& arguments, void* stream) {
  // Results for more tiles than a grid can have would fill hundreds of gigabytes.
  const auto tiles = static_cast<unsigned>(tiles_of(arguments, Tile::kSize));
  LWFM_LAUNCH((correlate<Tile, In>), tiles, Tile::kThreads, 0, static_cast<cudaStream_t>(stream),
              arguments);
  return cudaGetLastError();
}

template <class Stored, class In>
Images<Stored> stored(const Images<In>& from) {
  return {reinterpret_cast<const Stored*>(from.data),
          from.count,
          from.positions,
          from.channels,
          from.image_stride,
          from.position_stride,
          from.channel_stride};
}

// With features of the type that CUDA knows them by. Large tiles read less, as long as there is one
// for every other multiprocessor (measured on an H100: docs/cuda.md); float64 has the small ones
// only, for want of shared memory.
template <class Stored, class In, class T>
int launch_correlation(const CorrelationArguments<In, T>& from, int multiprocessors, void* stream) {
  const CorrelationArguments<Stored, T> arguments{stored<Stored>(from.support),
                                                  stored<Stored>(from.query),
                                                  stored<Stored>(from.support_compared),
                                                  stored<Stored>(from.query_compared),
                                                  from.temperature,
                                                  from.top_k,
                                                  from.a,
                                                  from.b,
                                                  from.similarity,
                                                  from.assignment};
  if (from.support.count == 0 || from.query.count == 0) return cudaSuccess;
  if constexpr (std::is_same_v<T, float>) {
    if (2 * tiles_of(arguments, 64) >= multiprocessors) {
      return launch_tiles<Tile<T, 64, 4>>(arguments, stream);
    }
  }
  return launch_tiles<Tile<T, 32, 2>>(arguments, stream);
}

}  // namespace lwfm
