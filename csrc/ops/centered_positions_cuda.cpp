// lwfm::centered_positions and its backward on CUDA tensors; the contract is in
// centered_positions.cpp, except that at most kMaxLayers layers are centered together.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include "centered_positions.h"
#include "cuda/feature_kernels.h"
#include "device.h"

namespace {

using lwfm::LayerPlace;
using lwfm::Sizes;
using torch::stable::Tensor;

// Calls launch(arguments) for the layers that are centered together; fill(l) makes the argument of
// layer l.
template <class Arguments, class Fill, class Launch>
void launch_layers(std::int64_t images, std::size_t layers, bool together, const Fill& fill,
                   const Launch& launch) {
  const std::size_t count = together ? layers : 1;
  lwfm::require(count <= lwfm::kMaxLayers,
                "at most " + std::to_string(lwfm::kMaxLayers) + " layers are centered on CUDA");
  for (std::size_t first = 0; first < layers; first += count) {
    Arguments arguments{images, static_cast<int>(count), {}};
    for (std::size_t l = 0; l < count; ++l) arguments.of[l] = fill(first + l);
    lwfm::require_launched(launch(arguments), "centered_positions");
  }
}

std::vector<Tensor> centered_positions_cuda(std::vector<Tensor> maps, Sizes dims, bool together) {
  const std::vector<LayerPlace> places = lwfm::places_of(maps, dims);
  for (const Tensor& map : maps) lwfm::require_same_device(maps[0], map, "every map");
  const lwfm::OnDeviceOf device(maps[0]);
  std::vector<Tensor> outputs = lwfm::empty_positions(maps, dims, places);
  lwfm::for_dtype(maps[0], [&](auto number) {
    using T = decltype(number);
    const auto fill = [&](std::size_t l) -> lwfm::LayerOfImages<T> {
      const Tensor& map = maps[places[l].map];
      return {lwfm::map_view<const T>(map, 0, places[l].channel, dims[l]), map.stride(0),
              lwfm::data_of<T>(outputs[l]), lwfm::data_of<T>(outputs[l + dims.size()])};
    };
    launch_layers<lwfm::PositionsArguments<T>>(
        maps[0].size(0), dims.size(), together, fill,
        [&](const auto& arguments) { return lwfm::center_images(arguments, device.stream()); });
  });
  return outputs;
}

std::vector<Tensor> centered_positions_backward_cuda(std::vector<Tensor> grads,
                                                     std::vector<Tensor> positions, Sizes heights,
                                                     bool together) {
  const lwfm::PositionsGradient to(grads, positions, heights);
  for (const Tensor& grad : to.grads) {
    lwfm::require_same_device(positions[0], grad, "every gradient");
  }
  const lwfm::OnDeviceOf device(positions[0]);
  const std::size_t layers = positions.size();
  lwfm::for_dtype(positions[0], [&](auto number) {
    using T = decltype(number);
    const auto fill = [&](std::size_t l) -> lwfm::LayerGradientOfImages<T> {
      const Tensor& map = to.maps[to.places[l].map];
      return {lwfm::map_view<T>(map, 0, to.places[l].channel, to.dims[l]), map.stride(0),
              lwfm::data_of<const T>(positions[l]), lwfm::data_of<const T>(to.grads[l]),
              lwfm::data_of<const T>(to.grads[l + layers])};
    };
    launch_layers<lwfm::PositionsGradientArguments<T>>(
        positions[0].size(0), layers, together, fill, [&](const auto& arguments) {
          return lwfm::center_images_backward(arguments, device.stream());
        });
  });
  return to.maps;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("centered_positions", TORCH_BOX(&centered_positions_cuda));
  library.impl("centered_positions_backward", TORCH_BOX(&centered_positions_backward_cuda));
}

#endif
