// What lwfm::encode_maps and its backward check and allocate, on any device; the contract is in
// encode_maps.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/matching/map_view.h"
#include "tensor_views.h"

namespace lwfm {

using TensorList = std::vector<Tensor>;
using Sizes = std::vector<std::int64_t>;

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

// Maps of several batches, one after another: of each batch one tensor [B, sum of C_l, F, F] if
// `joined`, else one [B, C_l, F_l, F_l] of each layer.
class MapBatches {
 public:
  MapBatches(TensorList maps, Sizes dims, bool joined)
      : maps_(std::move(maps)), dims_(std::move(dims)), joined_(joined) {
    const std::size_t of_batch = joined ? 1 : dims_.size();
    require(!dims_.empty() && !maps_.empty() && maps_.size() % of_batch == 0,
            "maps must be one tensor, or one of each layer, for each batch");
    std::int64_t channel = 0;
    for (const std::int64_t C : dims_) {
      channels_.push_back(channel);
      channel += C;
    }
    const ScalarType dtype = maps_[0].scalar_type();
    require(dtype == ScalarType::Float || dtype == ScalarType::Double,
            "maps must be float32 or float64");
    for (std::size_t m = 0; m < maps_.size(); ++m) {
      const Tensor &map = maps_[m], &first = maps_[m % of_batch];
      const std::int64_t C = joined ? channels_.back() + dims_.back() : dims_[m % of_batch];
      require(map.dim() == 4 && map.scalar_type() == dtype && map.size(1) == C &&
                  map.size(2) == first.size(2) && map.size(3) == first.size(3) &&
                  map.size(0) == maps_[m / of_batch * of_batch].size(0),
              "maps must be [B, C_l, F_l, F_l] of one dtype, the sides of a layer the same in all "
              "batches");
    }
    for (std::size_t b = 0; b < maps_.size(); b += of_batch) {
      begin_.push_back(begin_.back() + maps_[b].size(0));
    }
  }

  // Layers that are centered together have their positions in common.
  void require_centering(bool together) const {
    for (std::size_t l = 0; together && l < layers(); ++l) {
      require(of(0, l).size(2) == of(0, 0).size(2) && of(0, l).size(3) == of(0, 0).size(3),
              "layers that are centered together must have maps of the same sides");
    }
  }

  const Tensor& like() const { return maps_[0]; }
  const TensorList& tensors() const { return maps_; }
  std::size_t layers() const { return dims_.size(); }
  std::size_t batches() const { return begin_.size() - 1; }
  std::int64_t images() const { return begin_.back(); }
  std::int64_t begin(std::size_t batch) const { return begin_[batch]; }
  std::int64_t C(std::size_t l) const { return dims_[l]; }
  std::int64_t first_channel(std::size_t l) const { return joined_ ? channels_[l] : 0; }
  std::int64_t P(std::size_t l) const { return of(0, l).size(2) * of(0, l).size(3); }
  const Tensor& of(std::size_t batch, std::size_t l) const {
    return maps_[joined_ ? batch : batch * dims_.size() + l];
  }

  // T is const where maps are read.
  template <class T>
  MapView<T> view(std::int64_t image, std::size_t l) const {
    std::size_t batch = 0;
    while (begin_[batch + 1] <= image) ++batch;
    return map_view<T>(of(batch, l), image - begin_[batch], first_channel(l), dims_[l]);
  }

 private:
  TensorList maps_;
  Sizes dims_, channels_, begin_{0};
  bool joined_;
};

// phi(x) = x + relu(W2 relu(W1 x)) of each layer: W1 [H, C], W2 [C, H], contiguous; or none.
struct EmbeddingWeightsOfLayers {
  TensorList first, second;

  EmbeddingWeightsOfLayers(const TensorList& weights, const Sizes& dims, ScalarType dtype) {
    require(weights.empty() || weights.size() == 2 * dims.size(),
            "an embedding has two weights a layer");
    for (std::size_t l = 0; l < weights.size() / 2; ++l) {
      const Tensor &w1 = weights[2 * l], &w2 = weights[2 * l + 1];
      require(
          w1.dim() == 2 && w1.size(1) == dims[l] && has_shape(w2, {dims[l], w1.size(0)}) &&
              w1.scalar_type() == dtype && w2.scalar_type() == dtype,
          "weights must be W1 [H, C_l] and W2 [C_l, H] of each layer, of the dtype of the maps");
      first.push_back(contiguous_of(w1));
      second.push_back(contiguous_of(w2));
    }
  }

  bool exist() const { return !first.empty(); }
  std::int64_t hidden(std::size_t l) const { return first[l].size(0); }
};

// dtype in which `rectified` is recorded: the backward pass reads which numbers are positive. CUDA
// keeps what its products wrote, the CPU a byte for each.
inline ScalarType rectified_type(const Tensor& like) {
  return like.is_cpu() ? ScalarType::Bool : like.scalar_type();
}

// What the operator returns, for each layer, contiguous.
struct EncodedOutputs {
  TensorList positions, squares, grams;   // [n, P, C], [n, P], [n, P, P]
  TensorList embedded, embedded_squares;  // [n, P, C], [n, P], if there is an embedding
  TensorList hidden, rectified;           // [n, P, H], [n, P, C] if the backward pass needs them

  EncodedOutputs(const MapBatches& maps, const EmbeddingWeightsOfLayers& weights, bool record) {
    const std::int64_t n = maps.images();
    const ScalarType dtype = maps.like().scalar_type();
    const auto empty = [&](TensorList& to, std::initializer_list<std::int64_t> shape,
                           ScalarType type) {
      to.push_back(empty_tensor(maps.like(), shape, type));
    };
    for (std::size_t l = 0; l < maps.layers(); ++l) {
      const std::int64_t P = maps.P(l), C = maps.C(l);
      empty(positions, {n, P, C}, dtype);
      empty(squares, {n, P}, dtype);
      empty(grams, {n, P, P}, dtype);
      if (!weights.exist()) continue;
      empty(embedded, {n, P, C}, dtype);
      empty(embedded_squares, {n, P}, dtype);
      if (!record) continue;
      empty(hidden, {n, P, weights.hidden(l)}, dtype);
      empty(rectified, {n, P, C}, rectified_type(maps.like()));
    }
  }

  TensorList list() const {
    TensorList all;
    for (const TensorList* part :
         {&positions, &squares, &grams, &embedded, &embedded_squares, &hidden, &rectified}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    return all;
  }
};

// Maps of batches of images, to be written, contiguous; images: of each batch, heights and widths:
// of the maps of each layer.
inline MapBatches empty_maps(const Tensor& like, const Sizes& images, const Sizes& dims,
                             const Sizes& heights, const Sizes& widths, bool joined) {
  require(!images.empty() && !dims.empty() && heights.size() == dims.size() &&
              widths.size() == dims.size(),
          "the images of each batch, and channels, height and width of each layer are needed");
  std::int64_t channels = 0;
  for (const std::int64_t C : dims) channels += C;
  TensorList maps;
  for (const std::int64_t n : images) {
    for (std::size_t l = 0; l < (joined ? 1 : dims.size()); ++l) {
      maps.push_back(
          empty_tensor(like, Sizes{n, joined ? channels : dims[l], heights[l], widths[l]}));
    }
  }
  return {std::move(maps), dims, joined};
}

// What the backward pass reads, contiguous and checked, and the maps of the gradients.
struct EncodedGradients {
  TensorList positions_grads;
  TensorList embedded_grads;  // empty without an embedding
  TensorList positions, hidden, rectified;
  EmbeddingWeightsOfLayers weights;
  MapBatches maps;  // to be written, contiguous

  // grads: of positions, then of embedded.
  EncodedGradients(const TensorList& grads, const TensorList& all_positions,
                   const TensorList& all_weights, const TensorList& all_hidden,
                   const TensorList& all_rectified, const Sizes& images, const Sizes& heights,
                   bool joined)
      : weights(all_weights, dims_of(all_positions), dtype_of(all_positions)),
        maps(empty_maps(all_positions[0], images, dims_of(all_positions), heights,
                        widths_of(all_positions, heights), joined)) {
    const std::size_t L = all_positions.size(), embedded = weights.exist() ? L : 0;
    require(grads.size() == L + embedded && all_hidden.size() == embedded &&
                all_rectified.size() == embedded,
            "gradients of positions, and of embedded positions if there are any, are needed");
    const auto add = [dtype = dtype_of(all_positions)](TensorList& to, const Tensor& tensor,
                                                       const Tensor& like, std::int64_t C,
                                                       std::optional<ScalarType> type = {}) {
      require(has_shape(tensor, {like.size(0), like.size(1), C}) &&
                  tensor.scalar_type() == type.value_or(dtype),
              "gradients and recorded tensors must be those of the positions");
      to.push_back(contiguous_of(tensor));
    };
    require(maps.images() == all_positions[0].size(0),
            "images must add up to those of the positions");
    for (std::size_t l = 0; l < L; ++l) {
      const Tensor& x = all_positions[l];
      require(x.size(0) == maps.images() && x.size(1) == maps.P(l),
              "positions must be those of the images and heights");
      add(positions, x, x, x.size(2));
      add(positions_grads, grads[l], x, x.size(2));
      if (embedded == 0) continue;
      add(embedded_grads, grads[L + l], x, x.size(2));
      add(hidden, all_hidden[l], x, weights.hidden(l));
      add(rectified, all_rectified[l], x, x.size(2), rectified_type(x));
    }
  }

 private:
  static ScalarType dtype_of(const TensorList& positions) {
    require(!positions.empty(), "there must be positions of at least one layer");
    return positions[0].scalar_type();
  }

  static Sizes dims_of(const TensorList& positions) {
    Sizes dims;
    for (const Tensor& x : positions) {
      require(x.dim() == 3, "positions must be [n, P, C]");
      dims.push_back(x.size(2));
    }
    return dims;
  }

  static Sizes widths_of(const TensorList& positions, const Sizes& heights) {
    require(heights.size() == positions.size(), "a height of each layer is needed");
    Sizes widths;
    for (std::size_t l = 0; l < heights.size(); ++l) {
      require(heights[l] > 0 && positions[l].size(1) % heights[l] == 0,
              "heights must divide the positions");
      widths.push_back(positions[l].size(1) / heights[l]);
    }
    return widths;
  }
};

}  // namespace lwfm
