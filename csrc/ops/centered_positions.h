// What lwfm::centered_positions and its backward check and allocate, on any device; the contract
// is in centered_positions.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matching/map_view.h"
#include "tensor_views.h"

namespace lwfm {

using Sizes = std::vector<std::int64_t>;

// The map that holds a layer and where its channels begin.
struct LayerPlace {
  std::size_t map;
  std::int64_t channel;
};

inline std::vector<LayerPlace> places_of(const std::vector<Tensor>& maps, const Sizes& dims) {
  const bool one = maps.size() == 1;
  require(!dims.empty() && (one || maps.size() == dims.size()),
          "maps must be one tensor or one per layer");
  std::vector<LayerPlace> places;
  std::int64_t channel = 0;
  for (std::size_t l = 0; l < dims.size(); ++l) {
    places.push_back(one ? LayerPlace{0, channel} : LayerPlace{l, 0});
    channel += dims[l];
  }
  const ScalarType dtype = maps[0].scalar_type();
  require(dtype == ScalarType::Float || dtype == ScalarType::Double,
          "maps must be float32 or float64");
  for (std::size_t m = 0; m < maps.size(); ++m) {
    require(maps[m].dim() == 4 && maps[m].scalar_type() == dtype &&
                maps[m].size(0) == maps[0].size(0) && maps[m].size(1) == (one ? channel : dims[m]),
            "maps must be [B, C_l, F_l, F_l] of one dtype");
  }
  return places;
}

template <class T>
MapView<T> map_view(const Tensor& map, std::int64_t image, std::int64_t channel,
                    std::int64_t channels) {
  return {data_of<T>(map) + image * map.stride(0) + channel * map.stride(1),
          channels,
          map.size(2),
          map.size(3),
          map.stride(1),
          map.stride(2),
          map.stride(3)};
}

// positions [B, P_l, C_l] of each layer, then squares [B, P_l].
inline std::vector<Tensor> empty_positions(const std::vector<Tensor>& maps, const Sizes& dims,
                                           const std::vector<LayerPlace>& places) {
  std::vector<Tensor> outputs;
  for (const bool squares : {false, true}) {
    for (std::size_t l = 0; l < dims.size(); ++l) {
      const Tensor& map = maps[places[l].map];
      const std::int64_t P = map.size(2) * map.size(3);
      const Sizes shape = squares ? Sizes{map.size(0), P} : Sizes{map.size(0), P, dims[l]};
      outputs.push_back(torch::stable::new_empty(map, shape, map.scalar_type()));
    }
  }
  return outputs;
}

// What the backward pass reads and writes: contiguous gradients, and the maps of theirs.
struct PositionsGradient {
  std::vector<Tensor> grads;  // as the forward pass returned what they are gradients of
  Sizes dims;
  std::vector<Tensor> maps;  // to be written
  std::vector<LayerPlace> places;

  PositionsGradient(const std::vector<Tensor>& given, const std::vector<Tensor>& positions,
                    const Sizes& heights) {
    require(!positions.empty() && given.size() == 2 * positions.size(),
            "two gradients per layer are needed");
    for (const Tensor& grad : given) grads.push_back(torch::stable::contiguous(grad));
    std::int64_t channels = 0;
    for (const Tensor& x : positions) {
      dims.push_back(x.size(2));
      channels += x.size(2);
    }
    for (std::size_t m = 0; m < heights.size(); ++m) {
      const Tensor& x = positions[m];
      const std::int64_t C = heights.size() == 1 ? channels : dims[m];
      maps.push_back(torch::stable::new_empty(
          x, Sizes{x.size(0), C, heights[m], x.size(1) / heights[m]}, x.scalar_type()));
    }
    places = places_of(maps, dims);
  }
};

}  // namespace lwfm
