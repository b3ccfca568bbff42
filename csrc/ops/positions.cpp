// lwfm::centred_positions: maps of layers [B, C_l, F_l, F_l], or one [B, sum of C_l, F, F]
//   -> positions [B, P_l, C_l] of each layer, then their squared norms [B, P_l]; see
//   core/positions.h.
#include "core/positions.h"

#include <torch/csrc/stable/library.h>

#include <array>
#include <vector>

#include "blocks.h"
#include "core/vectorised.h"

namespace {

using lwfm::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<std::int64_t>;

// Which map a layer stands in and where its channels begin.
struct LayerPlace {
  std::size_t map;
  std::int64_t channel;
};

std::vector<LayerPlace> places_of(const std::vector<Tensor>& maps, const Sizes& dims) {
  const bool one = maps.size() == 1;
  lwfm::require(!dims.empty() && (one || maps.size() == dims.size()),
                "maps must be one tensor or one per layer");
  std::vector<LayerPlace> places;
  std::int64_t channel = 0;
  for (std::size_t l = 0; l < dims.size(); ++l) {
    places.push_back(one ? LayerPlace{0, channel} : LayerPlace{l, 0});
    channel += dims[l];
  }
  const ScalarType dtype = maps[0].scalar_type();
  lwfm::require(dtype == ScalarType::Float || dtype == ScalarType::Double,
                "maps must be float32 or float64");
  for (std::size_t m = 0; m < maps.size(); ++m) {
    lwfm::require(maps[m].dim() == 4 && maps[m].scalar_type() == dtype &&
                      maps[m].size(0) == maps[0].size(0) &&
                      maps[m].size(1) == (one ? channel : dims[m]),
                  "maps must be [B, C_l, F_l, F_l] of one dtype");
  }
  return places;
}

template <class T>
lwfm::MapView<T> map_view(const Tensor& map, std::int64_t picture, std::int64_t channel,
                          std::int64_t channels) {
  return {lwfm::data_of<T>(map) + picture * map.stride(0) + channel * map.stride(1),
          channels,
          map.size(2),
          map.size(3),
          map.stride(1),
          map.stride(2),
          map.stride(3)};
}

// Calls `centre(first layer, count)` for the layers of each picture that are centred together.
template <class Layer, class MakeLayer, class Centre>
void for_each_picture(std::int64_t pictures, std::int64_t layers, bool together,
                      const MakeLayer& make_layer, const Centre& centre) {
  torch::stable::parallel_for(0, pictures, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Layer> of_picture(static_cast<std::size_t>(layers));
    for (std::int64_t b = begin; b < end; ++b) {
      for (std::size_t l = 0; l < of_picture.size(); ++l) of_picture[l] = make_layer(b, l);
      const std::int64_t count = together ? layers : 1;
      for (std::int64_t l = 0; l < layers; l += count) {
        lwfm::vectorised([&]() LWFM_INLINE_LAMBDA { centre(of_picture.data() + l, count); });
      }
    }
  });
}

template <class T>
void centre_all(const std::vector<Tensor>& maps, const Sizes& dims, bool together,
                const std::vector<LayerPlace>& places, const std::vector<Tensor>& outputs) {
  using Layer = lwfm::LayerPositions<T>;
  const auto make_layer = [&](std::int64_t b, std::size_t l) -> Layer {
    const Tensor &x = outputs[l], &squares = outputs[l + dims.size()];
    return {map_view<const T>(maps[places[l].map], b, places[l].channel, dims[l]),
            lwfm::data_of<T>(x) + b * x.stride(0),
            lwfm::data_of<T>(squares) + b * squares.stride(0)};
  };
  for_each_picture<Layer>(maps[0].size(0), static_cast<std::int64_t>(dims.size()), together,
                          make_layer,
                          [](const Layer* layers, std::int64_t count)
                              LWFM_INLINE_LAMBDA { lwfm::centred_positions(layers, count); });
}

std::vector<Tensor> centred_positions_cpu(std::vector<Tensor> maps, Sizes dims, bool together) {
  const std::vector<LayerPlace> places = places_of(maps, dims);
  std::vector<Tensor> outputs;
  for (const bool squares : {false, true}) {
    for (std::size_t l = 0; l < dims.size(); ++l) {
      const Tensor& map = maps[places[l].map];
      const std::int64_t P = map.size(2) * map.size(3);
      const Sizes shape = squares ? Sizes{map.size(0), P} : Sizes{map.size(0), P, dims[l]};
      outputs.push_back(torch::stable::new_empty(map, shape, map.scalar_type()));
    }
  }
  if (maps[0].scalar_type() == ScalarType::Float) {
    centre_all<float>(maps, dims, together, places, outputs);
  } else {
    centre_all<double>(maps, dims, together, places, outputs);
  }
  return outputs;
}

template <class T>
void centre_all_backward(const std::vector<Tensor>& grads, const std::vector<Tensor>& positions,
                         const std::vector<Tensor>& maps, bool together,
                         const std::vector<LayerPlace>& places) {
  using Layer = lwfm::LayerPositionsGradient<T>;
  const std::size_t layers = positions.size();
  const auto make_layer = [&](std::int64_t b, std::size_t l) -> Layer {
    const Tensor &x = positions[l], &x_grad = grads[l], &squares_grad = grads[l + layers];
    return {lwfm::data_of<const T>(x) + b * x.stride(0),
            lwfm::data_of<const T>(x_grad) + b * x_grad.stride(0),
            lwfm::data_of<const T>(squares_grad) + b * squares_grad.stride(0),
            map_view<T>(maps[places[l].map], b, places[l].channel, x.size(2))};
  };
  for_each_picture<Layer>(
      positions[0].size(0), static_cast<std::int64_t>(layers), together, make_layer,
      [](const Layer* layer, std::int64_t count)
          LWFM_INLINE_LAMBDA { lwfm::centred_positions_backward(layer, count); });
}

// grads: of what the forward pass returned; positions: the first half of that; heights: of the
// maps.
std::vector<Tensor> centred_positions_backward_cpu(std::vector<Tensor> grads,
                                                   std::vector<Tensor> positions, Sizes heights,
                                                   bool together) {
  const std::size_t layers = positions.size();
  lwfm::require(layers > 0 && grads.size() == 2 * layers, "two gradients per layer are needed");
  for (Tensor& grad : grads) grad = torch::stable::contiguous(grad);
  Sizes dims;
  std::int64_t channels = 0;
  for (const Tensor& x : positions) {
    dims.push_back(x.size(2));
    channels += x.size(2);
  }
  std::vector<Tensor> maps;
  for (std::size_t m = 0; m < heights.size(); ++m) {
    const Tensor& x = positions[m];
    const std::int64_t C = heights.size() == 1 ? channels : dims[m];
    maps.push_back(torch::stable::new_empty(
        x, Sizes{x.size(0), C, heights[m], x.size(1) / heights[m]}, x.scalar_type()));
  }
  const std::vector<LayerPlace> places = places_of(maps, dims);
  if (positions[0].scalar_type() == ScalarType::Float) {
    centre_all_backward<float>(grads, positions, maps, together, places);
  } else {
    centre_all_backward<double>(grads, positions, maps, together, places);
  }
  return maps;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("centred_positions", TORCH_BOX(&centred_positions_cpu));
  library.impl("centred_positions_backward", TORCH_BOX(&centred_positions_backward_cpu));
}
