// Maps as centered positions and back: what core/matching/positions.h computes, with a warp for
// each position of each image. Neighboring warps read neighboring numbers of the same channels.
#pragma once

#include "feature_arguments.h"
#include "sums.cuh"

namespace lwfm {

constexpr int kPositionThreads = 256;

// The position of an image that a warp works on, and its place among those of all images.
struct PlaceOfWarp {
  std::int64_t row, step;

  __device__ PlaceOfWarp()
      : row(blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp),
        step(gridDim.x * std::int64_t{blockDim.x / kWarp}) {}
};

// Channel 0 of position row % P of image row / P, in a layer's map.
template <class Layer>
__device__ auto* first_channel(const Layer& layer, std::int64_t row) {
  const std::int64_t P = layer.map.positions();
  return layer.map.position(row % P) + row / P * layer.image_stride;
}

// The mean over the channels of all layers at one position; `value_of(layer, channel)` are summed.
template <class Arguments, class ValueOf>
__device__ auto mean_of_channels(const Arguments& arguments, const ValueOf& value_of) {
  decltype(value_of(arguments.of[0], 0)) sum{0};
  std::int64_t channels = 0;
  for (int l = 0; l < arguments.layers; ++l) {
    const auto& layer = arguments.of[l];
    for (std::int64_t c = lane_index(); c < layer.map.channels; c += kWarp) {
      sum += value_of(layer, c);
    }
    channels += layer.map.channels;
  }
  return warp_sum(sum) / static_cast<decltype(sum)>(channels);
}

// Writes what is left of a position of one layer, and its square.
template <class T>
__device__ void write_centered(const LayerOfImages<T>& layer, std::int64_t row, T mean) {
  const T* const x = first_channel(layer, row);
  T* const to = layer.positions + row * layer.map.channels;
  T square{0};
  for (std::int64_t c = lane_index(); c < layer.map.channels; c += kWarp) {
    const T centered = x[c * layer.map.channel_stride] - mean;
    to[c] = centered;
    square += centered * centered;
  }
  square = warp_sum(square);
  if (lane_index() == 0) layer.squares[row] = square;
}

template <class T>
__global__ void __launch_bounds__(kPositionThreads, 1)
    center_positions(PositionsArguments<T> arguments) {
  const std::int64_t rows = arguments.images * arguments.of[0].map.positions();
  const PlaceOfWarp place;
  for (std::int64_t row = place.row; row < rows; row += place.step) {
    const T mean = mean_of_channels(arguments, [&](const auto& layer, std::int64_t c) {
      return first_channel(layer, row)[c * layer.map.channel_stride];
    });
    for (int l = 0; l < arguments.layers; ++l) write_centered(arguments.of[l], row, mean);
  }
}

// The gradient of one channel of a centered position.
template <class T>
__device__ T centered_gradient(const LayerGradientOfImages<T>& layer, std::int64_t row,
                               std::int64_t c) {
  const std::int64_t at = row * layer.map.channels + c;
  return layer.positions_grad[at] + 2 * layer.squares_grad[row] * layer.positions[at];
}

template <class T>
__global__ void __launch_bounds__(kPositionThreads, 1)
    center_positions_backward(PositionsGradientArguments<T> arguments) {
  const std::int64_t rows = arguments.images * arguments.of[0].map.positions();
  const PlaceOfWarp place;
  for (std::int64_t row = place.row; row < rows; row += place.step) {
    const T mean = mean_of_channels(arguments, [&](const auto& layer, std::int64_t c) {
      return centered_gradient(layer, row, c);
    });
    for (int l = 0; l < arguments.layers; ++l) {
      const LayerGradientOfImages<T>& layer = arguments.of[l];
      T* const to = first_channel(layer, row);
      for (std::int64_t c = lane_index(); c < layer.map.channels; c += kWarp) {
        to[c * layer.map.channel_stride] = centered_gradient(layer, row, c) - mean;
      }
    }
  }
}

}  // namespace lwfm
