// lwfm::centered_positions: maps of layers [B, C_l, F_l, F_l], or one [B, sum of C_l, F, F]
//   -> positions [B, P_l, C_l] of each layer, then their squared norms [B, P_l]; see
//   core/matching/positions.h.
#include "centered_positions.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "core/matching/positions.h"
#include "core/simd/dispatch.h"

namespace {

using lwfm::LayerPlace;
using lwfm::map_view;
using lwfm::ScalarType;
using lwfm::Sizes;
using torch::stable::Tensor;

// Calls `center(VectorBytes, first layer, count)` for the layers of each image that are centered
// together.
template <class Layer, class MakeLayer, class Center>
void for_each_image(std::int64_t images, std::int64_t layers, bool together,
                    const MakeLayer& make_layer, const Center& center) {
  torch::stable::parallel_for(0, images, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Layer> of_image(static_cast<std::size_t>(layers));
    for (std::int64_t b = begin; b < end; ++b) {
      for (std::size_t l = 0; l < of_image.size(); ++l) of_image[l] = make_layer(b, l);
      const std::int64_t count = together ? layers : 1;
      for (std::int64_t l = 0; l < layers; l += count) {
        lwfm::vectorized([&](auto bytes)
                             LWFM_INLINE_LAMBDA { center(bytes, of_image.data() + l, count); });
      }
    }
  });
}

template <class T>
void center_all(const std::vector<Tensor>& maps, const Sizes& dims, bool together,
                const std::vector<LayerPlace>& places, const std::vector<Tensor>& outputs) {
  using Layer = lwfm::LayerPositions<T>;
  const auto make_layer = [&](std::int64_t b, std::size_t l) -> Layer {
    const Tensor &x = outputs[l], &squares = outputs[l + dims.size()];
    return {map_view<const T>(maps[places[l].map], b, places[l].channel, dims[l]),
            lwfm::data_of<T>(x) + b * x.stride(0),
            lwfm::data_of<T>(squares) + b * squares.stride(0)};
  };
  for_each_image<Layer>(
      maps[0].size(0), static_cast<std::int64_t>(dims.size()), together, make_layer,
      [](auto bytes, const Layer* layers, std::int64_t count)
          LWFM_INLINE_LAMBDA { lwfm::centered_positions<decltype(bytes)::value>(layers, count); });
}

std::vector<Tensor> centered_positions_cpu(std::vector<Tensor> maps, Sizes dims, bool together) {
  const std::vector<LayerPlace> places = lwfm::places_of(maps, dims);
  std::vector<Tensor> outputs = lwfm::empty_positions(maps, dims, places);
  if (maps[0].scalar_type() == ScalarType::Float) {
    center_all<float>(maps, dims, together, places, outputs);
  } else {
    center_all<double>(maps, dims, together, places, outputs);
  }
  return outputs;
}

template <class T>
void center_all_backward(const lwfm::PositionsGradient& to, const std::vector<Tensor>& positions,
                         bool together) {
  using Layer = lwfm::LayerPositionsGradient<T>;
  const std::size_t layers = positions.size();
  const auto make_layer = [&](std::int64_t b, std::size_t l) -> Layer {
    const Tensor &x = positions[l], &x_grad = to.grads[l], &squares_grad = to.grads[l + layers];
    return {lwfm::data_of<const T>(x) + b * x.stride(0),
            lwfm::data_of<const T>(x_grad) + b * x_grad.stride(0),
            lwfm::data_of<const T>(squares_grad) + b * squares_grad.stride(0),
            map_view<T>(to.maps[to.places[l].map], b, to.places[l].channel, x.size(2))};
  };
  for_each_image<Layer>(positions[0].size(0), static_cast<std::int64_t>(layers), together,
                        make_layer,
                        [](auto bytes, const Layer* layer, std::int64_t count) LWFM_INLINE_LAMBDA {
                          lwfm::centered_positions_backward<decltype(bytes)::value>(layer, count);
                        });
}

// grads: of what the forward pass returned; positions: the first half of that; heights: of the
// maps.
std::vector<Tensor> centered_positions_backward_cpu(std::vector<Tensor> grads,
                                                    std::vector<Tensor> positions, Sizes heights,
                                                    bool together) {
  const lwfm::PositionsGradient to(grads, positions, heights);
  if (positions[0].scalar_type() == ScalarType::Float) {
    center_all_backward<float>(to, positions, together);
  } else {
    center_all_backward<double>(to, positions, together);
  }
  return to.maps;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def("centered_positions(Tensor[] maps, int[] dims, bool together) -> Tensor[]");
  library.def(
      "centered_positions_backward(Tensor[] grads, Tensor[] positions, int[] heights, "
      "bool together) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("centered_positions", TORCH_BOX(&centered_positions_cpu));
  library.impl("centered_positions_backward", TORCH_BOX(&centered_positions_backward_cpu));
}
