// What lwfm::encode_maps and its backward hand to their kernels; the letters of
// csrc/ops/encode_maps.h. Plain C++, for the host and the kernels. Everything is contiguous but
// maps.
#pragma once

#include <cstdint>

#include "core/matching/map_view.h"

namespace lwfm {

// The most layers of a launch, and the most batches of maps.
constexpr int kMaxLayers = 16, kMapBatches = 2;

// Maps of one layer; `first` of each batch is that of its first image.
template <class T>
struct MapsOfLayer {
  MapView<T> first[kMapBatches];
  std::int64_t image_stride[kMapBatches];

  LWFM_HOST_DEVICE std::int64_t positions() const { return first[0].positions(); }
  LWFM_HOST_DEVICE std::int64_t channels() const { return first[0].channels; }
};

template <class T>
struct EncodedLayer {
  MapsOfLayer<const T> maps;
  std::int64_t H;
  T *positions, *squares, *grams;  // [n, P, C], [n, P], [n, P, P]
  T* hidden;                       // [n, P, H], what W1 made of the positions; or null
  T* rectified;                    // [n, P, C], what W2 made of them
  T *embedded, *embedded_squares;  // [n, P, C], [n, P]
};

// Gradients of one layer.
template <class T>
struct EncodedLayerGradient {
  MapsOfLayer<T> maps;  // to be written
  std::int64_t H;
  const T *hidden, *rectified;              // as the forward pass left them; or null
  const T *positions_grad, *embedded_grad;  // [n, P, C]; the second may be null
  T *rectified_grad, *hidden_grad;          // [n, P, C], [n, P, H]: before the rectifiers
  const T* product;                         // [n, P, C]: what W1 makes of hidden_grad
};

// Layer is EncodedLayer or EncodedLayerGradient.
template <class Layer>
struct EncodeArguments {
  std::int64_t images, images_of_first;  // in both batches, in the first one
  bool together;  // whether positions are centered over the channels of all layers
  bool record;    // whether the backward pass reads `rectified`
  int layers;
  Layer of[kMaxLayers];
};

}  // namespace lwfm
