// Maps as centred positions and back: what core/positions.h computes, with a warp for each position
// of each picture. Neighbouring warps read neighbouring numbers of the same channels.
#pragma once

#include "feature_arguments.h"
#include "sums.cuh"

namespace lwfm {

constexpr int kPositionThreads = 256;

// The positions of all pictures, shared among the warps of the grid: calls work(picture, position,
// row).
template <class Work>
__device__ void for_each_position(std::int64_t pictures, std::int64_t positions, const Work& work) {
  const std::int64_t warps = blockDim.x / kWarp, rows = pictures * positions;
  for (std::int64_t row = blockIdx.x * warps + threadIdx.x / kWarp; row < rows;
       row += gridDim.x * warps) {
    work(row / positions, row % positions, row);
  }
}

template <class T>
__global__ void __launch_bounds__(kPositionThreads, 1)
    centre_positions(PositionsArguments<T> arguments) {
  const int lane = lane_index(), layers = arguments.layers;
  const std::int64_t P = arguments.of[0].map.positions();
  for_each_position(arguments.pictures, P,
                    [&](std::int64_t picture, std::int64_t position, std::int64_t row) {
                      const auto from = [&](const LayerOfPictures<T>& layer) {
                        return layer.map.position(position) + picture * layer.picture_stride;
                      };
                      T sum{0};
                      std::int64_t channels = 0;
                      for (int l = 0; l < layers; ++l) {
                        const LayerOfPictures<T>& layer = arguments.of[l];
                        const T* const x = from(layer);
                        for (std::int64_t c = lane; c < layer.map.channels; c += kWarp) {
                          sum += x[c * layer.map.channel_stride];
                        }
                        channels += layer.map.channels;
                      }
                      const T mean = warp_sum(sum) / static_cast<T>(channels);
                      for (int l = 0; l < layers; ++l) {
                        const LayerOfPictures<T>& layer = arguments.of[l];
                        const T* const x = from(layer);
                        T* const to = layer.positions + row * layer.map.channels;
                        T square{0};
                        for (std::int64_t c = lane; c < layer.map.channels; c += kWarp) {
                          const T centred = x[c * layer.map.channel_stride] - mean;
                          to[c] = centred;
                          square += centred * centred;
                        }
                        square = warp_sum(square);
                        if (lane == 0) layer.squares[row] = square;
                      }
                    });
}

template <class T>
__global__ void __launch_bounds__(kPositionThreads, 1)
    centre_positions_backward(PositionsGradientArguments<T> arguments) {
  const int lane = lane_index(), layers = arguments.layers;
  const std::int64_t P = arguments.of[0].map.positions();
  for_each_position(
      arguments.pictures, P, [&](std::int64_t picture, std::int64_t position, std::int64_t row) {
        // The gradient of one channel, before the mean of all is taken off.
        const auto own = [&](const LayerGradientOfPictures<T>& layer, std::int64_t c) {
          const std::int64_t at = row * layer.map.channels + c;
          return layer.positions_grad[at] + 2 * layer.squares_grad[row] * layer.positions[at];
        };
        T sum{0};
        std::int64_t channels = 0;
        for (int l = 0; l < layers; ++l) {
          const LayerGradientOfPictures<T>& layer = arguments.of[l];
          for (std::int64_t c = lane; c < layer.map.channels; c += kWarp) sum += own(layer, c);
          channels += layer.map.channels;
        }
        const T mean = warp_sum(sum) / static_cast<T>(channels);
        for (int l = 0; l < layers; ++l) {
          const LayerGradientOfPictures<T>& layer = arguments.of[l];
          T* const to = layer.map.position(position) + picture * layer.picture_stride;
          for (std::int64_t c = lane; c < layer.map.channels; c += kWarp) {
            to[c * layer.map.channel_stride] = own(layer, c) - mean;
          }
        }
      });
}

}  // namespace lwfm
