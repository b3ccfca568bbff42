// The CUDA kernels of lwfm::encode_maps, for callers that know nothing of CUDA; as in
// pair_kernels.h, each function starts a kernel on a stream and returns at once, with a
// cudaError_t. T is float or double.
#pragma once

#include "encode_arguments.h"

namespace lwfm {

// Writes positions and squares.
template <class T>
int center_maps(const EncodeArguments<EncodedLayer<T>>& arguments, void* stream);

// Rectifies `hidden`, in place.
template <class T>
int rectify_hidden(const EncodeArguments<EncodedLayer<T>>& arguments, void* stream);

// Writes grams and, if there is an embedding, embedded and embedded_squares; `rectified` becomes
// what its name says if it is recorded.
template <class T>
int finish_encoding(const EncodeArguments<EncodedLayer<T>>& arguments, void* stream);

// Writes rectified_grad.
template <class T>
int mask_rectified(const EncodeArguments<EncodedLayerGradient<T>>& arguments, void* stream);

// Masks hidden_grad, in place.
template <class T>
int mask_hidden(const EncodeArguments<EncodedLayerGradient<T>>& arguments, void* stream);

// Writes the gradients of the maps.
template <class T>
int differentiate_centering(const EncodeArguments<EncodedLayerGradient<T>>& arguments,
                            void* stream);

}  // namespace lwfm
