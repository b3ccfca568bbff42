// lwfm::encode_maps and its backward on CUDA tensors; the contract is in encode_maps.cpp, except
// that there are at most kMaxLayers layers.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include "cuda/encode_kernels.h"
#include "cuda_products.h"
#include "device.h"
#include "encode_maps.h"

namespace {

using lwfm::data_of;
using lwfm::EmbeddingWeightsOfLayers;
using lwfm::EncodeArguments;
using lwfm::EncodedGradients;
using lwfm::EncodedLayer;
using lwfm::EncodedLayerGradient;
using lwfm::EncodedOutputs;
using lwfm::kMapBatches;
using lwfm::MapBatches;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

// The maps of batches `first`, ..., as many of them as a launch takes.
template <class T>
void read_maps(const MapBatches& maps, std::size_t first, std::size_t l, lwfm::MapsOfLayer<T>& to) {
  for (std::size_t k = 0; k < kMapBatches && first + k < maps.batches(); ++k) {
    const Tensor& map = maps.of(first + k, l);
    to.first[k] = lwfm::map_view<T>(map, 0, maps.first_channel(l), maps.C(l));
    to.image_stride[k] = map.stride(0);
  }
}

// `fill(l)` makes the argument of layer l.
template <class Layer, class Fill>
EncodeArguments<Layer> kernel_arguments(const MapBatches& maps, bool together, bool record,
                                        const Fill& fill) {
  lwfm::require(maps.layers() <= lwfm::kMaxLayers, "at most ", std::to_string(lwfm::kMaxLayers),
                " layers are encoded on CUDA");
  maps.require_centering(together);
  EncodeArguments<Layer> arguments{
      maps.images(), maps.begin(1), together, record, static_cast<int>(maps.layers()), {}};
  for (std::size_t l = 0; l < maps.layers(); ++l) {
    auto& layer = arguments.of[l] = fill(l);
    read_maps(maps, 0, l, layer.maps);
  }
  return arguments;
}

// Calls launch(arguments) for the batches that a launch takes; move(layer, image) advances what
// belongs to images to `image`.
template <class Layer, class Move, class Launch>
void for_batches(const MapBatches& maps, const EncodeArguments<Layer>& all, const Move& move,
                 const Launch& launch) {
  for (std::size_t first = 0; first < maps.batches(); first += kMapBatches) {
    const std::size_t end = std::min(first + kMapBatches, maps.batches());
    EncodeArguments<Layer> arguments = all;
    arguments.images = maps.begin(end) - maps.begin(first);
    arguments.images_of_first = maps.begin(first + 1) - maps.begin(first);
    for (std::size_t l = 0; l < maps.layers(); ++l) {
      auto& layer = arguments.of[l];
      read_maps(maps, first, l, layer.maps);
      move(layer, maps.begin(first));
    }
    lwfm::require_launched(launch(arguments), "encode_maps");
  }
}

// [n, P, C] as [n P, C]
Tensor as_rows(const Tensor& x) {
  return torch::stable::view(x, {x.size(0) * x.size(1), x.size(2)});
}

// Outputs whose memory the kernels and products need in any case.
void complete(EncodedOutputs& to, const MapBatches& maps, const EmbeddingWeightsOfLayers& weights) {
  for (std::size_t l = to.hidden.size(); weights.exist() && l < maps.layers(); ++l) {
    to.hidden.push_back(
        lwfm::empty_like(maps.like(), {maps.images(), maps.P(l), weights.hidden(l)}));
    to.rectified.push_back(lwfm::empty_like(maps.like(), {maps.images(), maps.P(l), maps.C(l)}));
  }
}

template <class T>
void encode(const MapBatches& maps, bool together, const EmbeddingWeightsOfLayers& weights,
            bool record, const EncodedOutputs& to, void* stream) {
  const auto arguments =
      kernel_arguments<EncodedLayer<T>>(maps, together, record, [&](std::size_t l) {
        EncodedLayer<T> layer{};
        layer.positions = data_of<T>(to.positions[l]);
        layer.squares = data_of<T>(to.squares[l]);
        layer.grams = data_of<T>(to.grams[l]);
        if (!weights.exist()) return layer;
        layer.H = weights.hidden(l);
        layer.hidden = data_of<T>(to.hidden[l]);
        layer.rectified = data_of<T>(to.rectified[l]);
        layer.embedded = data_of<T>(to.embedded[l]);
        layer.embedded_squares = data_of<T>(to.embedded_squares[l]);
        return layer;
      });
  const auto move = [](EncodedLayer<T>& layer, std::int64_t image) {
    const std::int64_t row = image * layer.maps.positions();
    layer.positions += row * layer.maps.channels();
    layer.squares += row;
  };
  for_batches(maps, arguments, move,
              [&](const auto& some) { return lwfm::center_maps(some, stream); });
  if (weights.exist()) {
    for (std::size_t l = 0; l < maps.layers(); ++l) {
      lwfm::multiply_matrices(as_rows(to.positions[l]), lwfm::transposed(weights.first[l]),
                              as_rows(to.hidden[l]));
    }
    lwfm::require_launched(lwfm::rectify_hidden(arguments, stream), "encode_maps");
    for (std::size_t l = 0; l < maps.layers(); ++l) {
      lwfm::multiply_matrices(as_rows(to.hidden[l]), lwfm::transposed(weights.second[l]),
                              as_rows(to.rectified[l]));
    }
  }
  lwfm::require_launched(lwfm::finish_encoding(arguments, stream), "encode_maps");
}

TensorList encode_maps_cuda(TensorList tensors, Sizes dims, bool joined, bool together,
                            TensorList all_weights, bool record) {
  const MapBatches maps(tensors, dims, joined);
  const EmbeddingWeightsOfLayers weights(all_weights, dims, maps.like().scalar_type());
  for (const TensorList* list : {&tensors, &all_weights}) {
    for (const Tensor& tensor : *list)
      lwfm::require_same_device(maps.like(), tensor, "every map and weight");
  }
  const lwfm::OnDeviceOf device(maps.like());
  const EncodedOutputs outputs(maps, weights, record);
  EncodedOutputs memory = outputs;
  complete(memory, maps, weights);
  if (maps.images() > 0) {
    lwfm::for_dtype(maps.like(), [&](auto number) {
      encode<decltype(number)>(maps, together, weights, record, memory, device.stream());
    });
  }
  return outputs.list();
}

// Gradients before the rectifiers, and what W1 makes of them.
struct EmbeddingGradients {
  TensorList rectified, hidden, products;

  explicit EmbeddingGradients(const EncodedGradients& from) {
    for (std::size_t l = 0; l < from.hidden.size(); ++l) {
      rectified.push_back(torch::stable::empty_like(from.rectified[l]));
      hidden.push_back(torch::stable::empty_like(from.hidden[l]));
      products.push_back(torch::stable::empty_like(from.positions[l]));
    }
  }
};

template <class T>
void encode_backward(const EncodedGradients& from, bool together, const TensorList& weight_grads,
                     void* stream) {
  const EmbeddingGradients grads(from);
  const auto arguments =
      kernel_arguments<EncodedLayerGradient<T>>(from.maps, together, true, [&](std::size_t l) {
        EncodedLayerGradient<T> layer{};
        layer.positions_grad = data_of<const T>(from.positions_grads[l]);
        if (!from.weights.exist()) return layer;
        layer.H = from.weights.hidden(l);
        layer.hidden = data_of<const T>(from.hidden[l]);
        layer.rectified = data_of<const T>(from.rectified[l]);
        layer.embedded_grad = data_of<const T>(from.embedded_grads[l]);
        layer.rectified_grad = data_of<T>(grads.rectified[l]);
        layer.hidden_grad = data_of<T>(grads.hidden[l]);
        layer.product = data_of<const T>(grads.products[l]);
        return layer;
      });
  const std::size_t embedded = from.hidden.size();
  if (embedded > 0)
    lwfm::require_launched(lwfm::mask_rectified(arguments, stream), "encode_maps_backward");
  for (std::size_t l = 0; l < embedded; ++l) {
    lwfm::multiply_matrices(as_rows(grads.rectified[l]), from.weights.second[l],
                            as_rows(grads.hidden[l]));
  }
  if (embedded > 0)
    lwfm::require_launched(lwfm::mask_hidden(arguments, stream), "encode_maps_backward");
  for (std::size_t l = 0; l < embedded; ++l) {
    const Tensor hidden = as_rows(grads.hidden[l]);
    lwfm::multiply_matrices(hidden, from.weights.first[l], as_rows(grads.products[l]));
    lwfm::multiply_matrices(lwfm::transposed(hidden), as_rows(from.positions[l]),
                            weight_grads[2 * l]);
    lwfm::multiply_matrices(lwfm::transposed(as_rows(grads.rectified[l])), as_rows(from.hidden[l]),
                            weight_grads[2 * l + 1]);
  }
  const auto move = [](EncodedLayerGradient<T>& layer, std::int64_t image) {
    const std::int64_t first = image * layer.maps.positions() * layer.maps.channels();
    layer.positions_grad += first;
    if (layer.embedded_grad == nullptr) return;
    layer.embedded_grad += first;
    layer.product += first;
  };
  for_batches(from.maps, arguments, move,
              [&](const auto& some) { return lwfm::differentiate_centering(some, stream); });
}

TensorList encode_maps_backward_cuda(TensorList grads, TensorList positions, TensorList weights,
                                     TensorList hidden, TensorList rectified, Sizes images,
                                     Sizes heights, bool joined, bool together) {
  const EncodedGradients from(grads, positions, weights, hidden, rectified, images, heights,
                              joined);
  for (const TensorList* list : {&grads, &positions, &weights, &hidden, &rectified}) {
    for (const Tensor& tensor : *list)
      lwfm::require_same_device(positions[0], tensor, "every gradient");
  }
  const lwfm::OnDeviceOf device(positions[0]);
  TensorList all = from.maps.tensors(), weight_grads;
  for (const Tensor& weight : weights) {
    weight_grads.push_back(
        from.maps.images() > 0
            ? torch::stable::new_empty(weight, weight.sizes(), weight.scalar_type())
            : torch::stable::new_zeros(weight, weight.sizes()));
  }
  if (from.maps.images() > 0) {
    lwfm::for_dtype(positions[0], [&](auto number) {
      encode_backward<decltype(number)>(from, together, weight_grads, device.stream());
    });
  }
  all.insert(all.end(), weight_grads.begin(), weight_grads.end());
  return all;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("encode_maps", TORCH_BOX(&encode_maps_cuda));
  library.impl("encode_maps_backward", TORCH_BOX(&encode_maps_backward_cuda));
}

#endif
