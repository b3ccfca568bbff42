// Maps as centered positions, with an embedding if there is one, and back: what
// csrc/ops/encode_maps.cpp computes, around the products of matrices. A warp for each position of
// each image where channels are summed.
#pragma once

#include "encode_arguments.h"
#include "sums.cuh"

namespace lwfm {

constexpr int kEncodeThreads = 256;

// The position of an image that a warp works on, and its place among those of all images.
struct PlaceOfWarp {
  std::int64_t row, step;

  __device__ PlaceOfWarp()
      : row(blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp),
        step(gridDim.x * std::int64_t{blockDim.x / kWarp}) {}
};

// Channel 0 of position row % P of image row / P in the maps of a layer.
template <class Arguments, class T>
__device__ T* first_channel(const Arguments& arguments, const MapsOfLayer<T>& maps,
                            std::int64_t row) {
  const std::int64_t P = maps.positions();
  std::int64_t image = row / P;
  const int batch = image < arguments.images_of_first ? 0 : 1;
  if (batch == 1) image -= arguments.images_of_first;
  return maps.first[batch].position(row % P) + image * maps.image_stride[batch];
}

template <class T>
__device__ std::int64_t channel_stride(const MapsOfLayer<T>& maps, bool in_first) {
  return maps.first[in_first ? 0 : 1].channel_stride;
}

// The mean over the channels of layers first, ..., end - 1; `value_of(l, channel)` are summed.
template <class Arguments, class ValueOf>
__device__ auto mean_of_channels(const Arguments& arguments, int first, int end,
                                 const ValueOf& value_of) {
  decltype(value_of(0, 0)) sum{0};
  std::int64_t channels = 0;
  for (int l = first; l < end; ++l) {
    const std::int64_t C = arguments.of[l].maps.channels();
    for (std::int64_t c = lane_index(); c < C; c += kWarp) sum += value_of(l, c);
    channels += C;
  }
  return warp_sum(sum) / static_cast<decltype(sum)>(channels);
}

// Calls work(row, first, end) with each position of a warp and the layers that are centered
// together.
template <class Arguments, class Work>
__device__ void for_each_position(const Arguments& arguments, const Work& work) {
  const int count = arguments.together ? arguments.layers : 1;
  for (int first = 0; first < arguments.layers; first += count) {
    const std::int64_t rows = arguments.images * arguments.of[first].maps.positions();
    const PlaceOfWarp place;
    for (std::int64_t row = place.row; row < rows; row += place.step)
      work(row, first, first + count);
  }
}

template <class T>
__global__ void __launch_bounds__(kEncodeThreads, 1)
    center_maps(EncodeArguments<EncodedLayer<T>> arguments) {
  for_each_position(arguments, [&](std::int64_t row, int first, int end) {
    const bool in_first = row < arguments.images_of_first * arguments.of[first].maps.positions();
    const T mean = mean_of_channels(arguments, first, end, [&](int l, std::int64_t c) {
      const auto& maps = arguments.of[l].maps;
      return first_channel(arguments, maps, row)[c * channel_stride(maps, in_first)];
    });
    for (int l = first; l < end; ++l) {
      const EncodedLayer<T>& layer = arguments.of[l];
      const std::int64_t C = layer.maps.channels(), step = channel_stride(layer.maps, in_first);
      const T* const from = first_channel(arguments, layer.maps, row);
      T square{0};
      for (std::int64_t c = lane_index(); c < C; c += kWarp) {
        const T centered = from[c * step] - mean;
        layer.positions[row * C + c] = centered;
        square += centered * centered;
      }
      square = warp_sum(square);
      if (lane_index() == 0) layer.squares[row] = square;
    }
  });
}

// Calls work(layer, k) for numbers 0, ..., count(layer) - 1 of each image of each layer.
template <class Arguments, class Count, class Work>
__device__ void for_each_number(const Arguments& arguments, const Count& count, const Work& work) {
  for (int l = 0; l < arguments.layers; ++l) {
    const std::int64_t numbers = arguments.images * count(arguments.of[l]);
    for (std::int64_t k = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; k < numbers;
         k += gridDim.x * std::int64_t{blockDim.x}) {
      work(arguments.of[l], k);
    }
  }
}

// A NaN stays.
template <class T>
__device__ T rectify(T x) {
  return x < T{0} ? T{0} : x;
}

template <class T>
__global__ void __launch_bounds__(kEncodeThreads, 1)
    rectify_hidden(EncodeArguments<EncodedLayer<T>> arguments) {
  for_each_number(
      arguments, [](const EncodedLayer<T>& layer) { return layer.maps.positions() * layer.H; },
      [](const EncodedLayer<T>& layer, std::int64_t k) {
        layer.hidden[k] = rectify(layer.hidden[k]);
      });
}

// The products of an image's positions with one another, a warp for each pair of them.
template <class T>
__device__ void write_gram(const EncodedLayer<T>& layer, std::int64_t image) {
  const int P = static_cast<int>(layer.maps.positions()),
            warps = static_cast<int>(blockDim.x) / kWarp;
  const std::int64_t C = layer.maps.channels();
  const T* const x = layer.positions + image * P * C;
  T* const gram = layer.grams + image * P * P;
  for (int n = static_cast<int>(threadIdx.x) / kWarp; n < P * P; n += warps) {
    const int i = n / P, j = n % P;
    if (j < i) continue;
    const T product = warp_inner_product(x + i * C, x + j * C, C);
    if (lane_index() == 0) gram[i * P + j] = gram[j * P + i] = product;
  }
}

template <class T>
__device__ void write_embedded(const EncodedLayer<T>& layer, std::int64_t row, bool record) {
  const std::int64_t C = layer.maps.channels(), first = row * C;
  T square{0};
  for (std::int64_t c = lane_index(); c < C; c += kWarp) {
    const T rectified = rectify(layer.rectified[first + c]);
    const T embedded = layer.positions[first + c] + rectified;
    if (record) layer.rectified[first + c] = rectified;
    layer.embedded[first + c] = embedded;
    square += embedded * embedded;
  }
  square = warp_sum(square);
  if (lane_index() == 0) layer.embedded_squares[row] = square;
}

// A block for each image of each layer.
template <class T>
__global__ void __launch_bounds__(kEncodeThreads, 1)
    finish_encoding(EncodeArguments<EncodedLayer<T>> arguments) {
  const std::int64_t warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (std::int64_t n = blockIdx.x; n < arguments.images * arguments.layers; n += gridDim.x) {
    const EncodedLayer<T>& layer = arguments.of[n % arguments.layers];
    const std::int64_t image = n / arguments.layers, P = layer.maps.positions();
    write_gram(layer, image);
    for (std::int64_t p = warp; layer.embedded != nullptr && p < P; p += warps) {
      write_embedded(layer, image * P + p, arguments.record);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kEncodeThreads, 1)
    mask_rectified(EncodeArguments<EncodedLayerGradient<T>> arguments) {
  for_each_number(
      arguments,
      [](const EncodedLayerGradient<T>& layer) {
        return layer.maps.positions() * layer.maps.channels();
      },
      [](const EncodedLayerGradient<T>& layer, std::int64_t k) {
        layer.rectified_grad[k] = layer.rectified[k] > T{0} ? layer.embedded_grad[k] : T{0};
      });
}

template <class T>
__global__ void __launch_bounds__(kEncodeThreads, 1)
    mask_hidden(EncodeArguments<EncodedLayerGradient<T>> arguments) {
  for_each_number(
      arguments,
      [](const EncodedLayerGradient<T>& layer) { return layer.maps.positions() * layer.H; },
      [](const EncodedLayerGradient<T>& layer, std::int64_t k) {
        if (!(layer.hidden[k] > T{0})) layer.hidden_grad[k] = T{0};
      });
}

// The gradient of one channel of a centered position.
template <class T>
__device__ T centered_gradient(const EncodedLayerGradient<T>& layer, std::int64_t at) {
  const T own = layer.positions_grad[at];
  return layer.product == nullptr ? own : layer.product[at] + (layer.embedded_grad[at] + own);
}

template <class T>
__global__ void __launch_bounds__(kEncodeThreads, 1)
    differentiate_centering(EncodeArguments<EncodedLayerGradient<T>> arguments) {
  for_each_position(arguments, [&](std::int64_t row, int first, int end) {
    const bool in_first = row < arguments.images_of_first * arguments.of[first].maps.positions();
    const T mean = mean_of_channels(arguments, first, end, [&](int l, std::int64_t c) {
      const auto& layer = arguments.of[l];
      return centered_gradient(layer, row * layer.maps.channels() + c);
    });
    for (int l = first; l < end; ++l) {
      const EncodedLayerGradient<T>& layer = arguments.of[l];
      const std::int64_t C = layer.maps.channels(), step = channel_stride(layer.maps, in_first);
      T* const to = first_channel(arguments, layer.maps, row);
      for (std::int64_t c = lane_index(); c < C; c += kWarp) {
        to[c * step] = centered_gradient(layer, row * C + c) - mean;
      }
    }
  });
}

}  // namespace lwfm
