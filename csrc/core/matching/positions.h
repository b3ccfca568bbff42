// Maps of backbone layers as positions: channels last, centered, with the squared norms that
// correlations and cosines need; and the way back for gradients.
//
//   x_pc = map_cp - mean over the channels of all layers (or of its own)     square_p = sum_c
//   x_pc^2
//
// Centering is a projection, so its derivative is itself.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/matching/map_view.h"
#include "core/simd/cache_line.h"

namespace lwfm {

// One layer of one image on both sides; positions [P, channels] and squares [P] are contiguous.
template <class T>
struct LayerPositions {
  MapView<const T> map;
  T* positions;
  T* squares;
};

template <class T>
struct LayerPositionsGradient {
  const T* positions;       // as the forward pass wrote them
  const T* positions_grad;  // [P, channels], or null for zeros
  const T* squares_grad;    // [P], or null for zeros
  MapView<T> map;           // where the gradient goes
};

template <int kBytes, class T>
LWFM_INLINE T sum_of(const T* x, std::int64_t count) {
  CacheLine<T, kBytes> sums, v;
  std::int64_t k = 0;
  for (; k + kCacheLine<T> <= count; k += kCacheLine<T>) {
    v.read(x + k);
    sums.add(v);
  }
  T sum = sums.sum();
  for (; k < count; ++k) sum += x[k];
  return sum;
}

// positions [P, channels] from the map, a few channels at a time so that both sides stay in L1.
template <class T>
LWFM_INLINE void lay_out(const MapView<const T>& map, T* positions) {
  constexpr std::int64_t kTile = 16;
  const std::int64_t P = map.positions(), C = map.channels;
  for (std::int64_t first = 0; first < C; first += kTile) {
    const std::int64_t last = std::min(first + kTile, C);
    for (std::int64_t p = 0; p < P; ++p) {
      const T* from = map.position(p);
      T* to = positions + p * C;
      for (std::int64_t c = first; c < last; ++c) to[c] = from[c * map.channel_stride];
    }
  }
}

// Takes `mean` off and returns the sum of squares of what is left.
template <int kBytes, class T>
LWFM_INLINE T center(T* x, std::int64_t count, T mean) {
  CacheLine<T, kBytes> squares, v;
  std::int64_t k = 0;
  for (; k + kCacheLine<T> <= count; k += kCacheLine<T>) {
    v.read(x + k);
    v.subtract(mean);
    squares.add_product(v, v);
    v.write(x + k);
  }
  T square = squares.sum();
  for (; k < count; ++k) {
    x[k] -= mean;
    square += x[k] * x[k];
  }
  return square;
}

// `layers` of one image, all of the same height and width, are centered together.
template <int kBytes, class T>
LWFM_INLINE void centered_positions(const LayerPositions<T>* layers, std::int64_t count) {
  const std::int64_t P = layers[0].map.positions();
  std::int64_t channels = 0;
  for (std::int64_t l = 0; l < count; ++l) channels += layers[l].map.channels;
  for (std::int64_t l = 0; l < count; ++l) lay_out(layers[l].map, layers[l].positions);
  for (std::int64_t p = 0; p < P; ++p) {
    T sum{0};
    for (std::int64_t l = 0; l < count; ++l) {
      const std::int64_t C = layers[l].map.channels;
      sum += sum_of<kBytes>(layers[l].positions + p * C, C);
    }
    const T mean = sum / static_cast<T>(channels);
    for (std::int64_t l = 0; l < count; ++l) {
      const std::int64_t C = layers[l].map.channels;
      layers[l].squares[p] = center<kBytes>(layers[l].positions + p * C, C, mean);
    }
  }
}

// The gradient of position p, as scaled copies of itself and of its gradient, less `mean`.
template <class T>
LWFM_INLINE void write_gradient(const LayerPositionsGradient<T>& layer, std::int64_t p, T mean) {
  const std::int64_t C = layer.map.channels;
  const T* x = layer.positions + p * C;
  const T* grad = layer.positions_grad == nullptr ? nullptr : layer.positions_grad + p * C;
  const T twice = layer.squares_grad == nullptr ? T{0} : 2 * layer.squares_grad[p];
  T* to = layer.map.position(p);
  for (std::int64_t c = 0; c < C; ++c) {
    to[c * layer.map.channel_stride] = (grad == nullptr ? T{0} : grad[c]) + twice * x[c] - mean;
  }
}

// The sum over channels of the gradient of position p. That of the centered x itself is zero only
// if it was centered alone, so it is summed too.
template <int kBytes, class T>
LWFM_INLINE T gradient_sum(const LayerPositionsGradient<T>& layer, std::int64_t p) {
  const std::int64_t C = layer.map.channels;
  T sum{0};
  if (layer.positions_grad != nullptr) sum += sum_of<kBytes>(layer.positions_grad + p * C, C);
  if (layer.squares_grad != nullptr) {
    sum += 2 * layer.squares_grad[p] * sum_of<kBytes>(layer.positions + p * C, C);
  }
  return sum;
}

template <int kBytes, class T>
LWFM_INLINE void centered_positions_backward(const LayerPositionsGradient<T>* layers,
                                             std::int64_t count) {
  const std::int64_t P = layers[0].map.positions();
  std::int64_t channels = 0;
  for (std::int64_t l = 0; l < count; ++l) channels += layers[l].map.channels;
  for (std::int64_t p = 0; p < P; ++p) {
    T sum{0};
    for (std::int64_t l = 0; l < count; ++l) sum += gradient_sum<kBytes>(layers[l], p);
    const T mean = sum / static_cast<T>(channels);
    for (std::int64_t l = 0; l < count; ++l) write_gradient(layers[l], p, mean);
  }
}

}  // namespace lwfm
