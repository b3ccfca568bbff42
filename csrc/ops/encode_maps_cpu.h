// lwfm::encode_maps and its backward on the CPU, as functions on memory.
#pragma once

#include <type_traits>
#include <vector>

#include "encode_maps.h"

namespace lwfm {

// One encoded layer; T is const where it is read.
template <class T>
struct EncodedArrays {
  using Flag = std::conditional_t<std::is_const_v<T>, const bool, bool>;

  T *positions, *squares, *grams;  // [n, P, C], [n, P], [n, P, P]
  T *embedded, *embedded_squares;  // [n, P, C], [n, P]; null without an embedding
  T* hidden;                       // [n, P, H]; null if the backward pass does not need it
  Flag* rectified;                 // [n, P, C]; the same
};

// See encode_maps.cpp.
template <class T>
void encode_layers(const MapBatches& maps, bool together, const EmbeddingWeightsOfLayers& weights,
                   const std::vector<EncodedArrays<T>>& to);

// What the backward pass reads, and the maps of the gradients, to be written: first those of
// positions, which those of the maps replace.
template <class T>
struct EncodedLayers {
  const MapBatches& maps;
  const EmbeddingWeightsOfLayers& weights;
  std::vector<EncodedArrays<const T>> of;  // positions, hidden and rectified of each layer
};

// Adds to the gradient of the positions of a layer what comes through its embedding, and returns
// the gradients of its two weights; overwrites `embedded`, the gradient of embedded positions.
template <class T>
TensorList differentiate_embedding(const EncodedLayers<T>& from, std::size_t l, T* embedded);
// The gradients of the maps, in place of those of positions.
template <class T>
void differentiate_centering(const EncodedLayers<T>& from, bool together);

}  // namespace lwfm
