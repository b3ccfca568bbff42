// lwfm::encode_maps: maps of several batches (see MapBatches) and the weights W1, W2 of each
// layer's embedding (none: no embedding)
//   -> for each layer positions [n, P, C] centered over the channels of all layers `together` or of
//   its own, their squared norms [n, P] and inner products within an image [n, P, P]; with an
//   embedding also embedded positions [n, P, C] and their squared norms [n, P]; if `record` what
//   the backward pass reads, hidden [n, P, H] and rectified [n, P, C]. All of the first kind, then
//   all of the second, and so on.
// Only positions and embedded have gradients. See core/matching/positions.h.
#include <torch/csrc/stable/library.h>

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/matching/positions.h"
#include "core/simd/dispatch.h"
#include "core/simd/rows.h"
#include "cpu_products.h"
#include "encode_maps_cpu.h"

namespace {

using lwfm::CpuProducts;
using lwfm::EmbeddingWeightsOfLayers;
using lwfm::EncodedArrays;
using lwfm::EncodedGradients;
using lwfm::EncodedLayers;
using lwfm::EncodedOutputs;
using lwfm::in_parallel;
using lwfm::MapBatches;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

// Images whose positions are multiplied with the weights together: some 160 rows of a layer, fewer
// than 17 images.
struct ImageTiles {
  std::int64_t images, width = 16;

  explicit ImageTiles(const MapBatches& maps) : images(maps.images()) {
    for (std::size_t l = 0; l < maps.layers(); ++l) {
      const std::int64_t P = std::max<std::int64_t>(1, maps.P(l));
      width = std::min(width, std::max<std::int64_t>(1, 160 / P));
    }
  }

  std::int64_t count() const { return (images + width - 1) / width; }
  std::int64_t first(std::int64_t tile) const { return tile * width; }
  std::int64_t end(std::int64_t tile) const { return std::min(images, (tile + 1) * width); }
};

// The rows of one layer that belong to a tile.
struct TileRows {
  std::int64_t first, count;

  TileRows(const ImageTiles& tiles, std::int64_t tile, std::int64_t P)
      : first(tiles.first(tile) * P), count((tiles.end(tile) - tiles.first(tile)) * P) {}
};

// Calls work(VectorBytes, first layer, count) for layers that are centered together.
template <class Work>
void for_centered(std::size_t layers, bool together, const Work& work) {
  const std::size_t count = together ? layers : 1;
  for (std::size_t l = 0; l < layers; l += count) {
    lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA { work(bytes, l, count); });
  }
}

template <class T>
void center_image(const MapBatches& maps, bool together, const std::vector<EncodedArrays<T>>& to,
                  std::int64_t image) {
  std::vector<lwfm::LayerPositions<T>> layers;
  for (std::size_t l = 0; l < maps.layers(); ++l) {
    layers.push_back({maps.view<const T>(image, l), to[l].positions + image * maps.P(l) * maps.C(l),
                      to[l].squares + image * maps.P(l)});
  }
  for_centered(maps.layers(), together,
               [&](auto bytes, std::size_t first, std::size_t count) LWFM_INLINE_LAMBDA {
                 lwfm::centered_positions<decltype(bytes)::value>(layers.data() + first,
                                                                  static_cast<std::int64_t>(count));
                 for (std::size_t l = first; l < first + count; ++l) {
                   const std::int64_t P = maps.P(l), C = maps.C(l);
                   const T* const x = layers[l].positions;
                   lwfm::products_with_rows<decltype(bytes)::value, T>(
                       [&](std::int64_t p) LWFM_INLINE_LAMBDA { return x + p * C; }, P, {x, P, C},
                       C, {to[l].grams + image * P * P, P, P});
                 }
               });
}

template <class T>
void rectify(T* x, std::int64_t count) {
  lwfm::vectorized([&](auto) LWFM_INLINE_LAMBDA {
    for (std::int64_t k = 0; k < count; ++k) x[k] = x[k] < T{0} ? T{0} : x[k];  // a NaN stays
  });
}

// Embeds the rows of a tile of layer l.
template <class T>
void embed_rows(const EmbeddingWeightsOfLayers& weights, const EncodedArrays<T>& to, std::size_t l,
                std::int64_t C, const TileRows& rows) {
  thread_local std::vector<T> hidden_rows;
  const std::int64_t H = weights.hidden(l), count = rows.count * C;
  const bool record = to.hidden != nullptr;
  if (!record) hidden_rows.resize(static_cast<std::size_t>(rows.count * H));
  T* const hidden = record ? to.hidden + rows.first * H : hidden_rows.data();
  const T* const x = to.positions + rows.first * C;
  T* const embedded = to.embedded + rows.first * C;
  T* const squares = to.embedded_squares + rows.first;
  CpuProducts::rows(x, rows.count, lwfm::data_of<const T>(weights.first[l]), H, C, hidden);
  rectify(hidden, rows.count * H);
  CpuProducts::rows(hidden, rows.count, lwfm::data_of<const T>(weights.second[l]), C, H, embedded);
  rectify(embedded, count);
  lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    bool* const positive = record ? to.rectified + rows.first * C : nullptr;
    for (std::int64_t k = 0; record && k < count; ++k) positive[k] = embedded[k] > T{0};
    for (std::int64_t k = 0; k < count; ++k) embedded[k] = x[k] + embedded[k];
    for (std::int64_t r = 0; r < rows.count; ++r) {
      squares[r] =
          lwfm::inner_product<decltype(bytes)::value>(embedded + r * C, embedded + r * C, C);
    }
  });
}

// The layers that the operator returns.
template <class T>
std::vector<EncodedArrays<T>> arrays_of(const EncodedOutputs& outputs) {
  std::vector<EncodedArrays<T>> layers;
  for (std::size_t l = 0; l < outputs.positions.size(); ++l) {
    layers.push_back({lwfm::data_of<T>(outputs.positions[l]), lwfm::data_of<T>(outputs.squares[l]),
                      lwfm::data_of<T>(outputs.grams[l]), nullptr, nullptr, nullptr, nullptr});
    if (outputs.embedded.empty()) continue;
    layers[l].embedded = lwfm::data_of<T>(outputs.embedded[l]);
    layers[l].embedded_squares = lwfm::data_of<T>(outputs.embedded_squares[l]);
    if (outputs.hidden.empty()) continue;
    layers[l].hidden = lwfm::data_of<T>(outputs.hidden[l]);
    layers[l].rectified = lwfm::data_of<bool>(outputs.rectified[l]);
  }
  return layers;
}

TensorList encode_maps_cpu(TensorList tensors, Sizes dims, bool joined, bool together,
                           TensorList all_weights, bool record) {
  const MapBatches maps(tensors, dims, joined);
  const EmbeddingWeightsOfLayers weights(all_weights, dims, maps.like().scalar_type());
  const EncodedOutputs outputs(maps, weights, record);
  if (maps.like().scalar_type() == ScalarType::Float) {
    lwfm::encode_layers(maps, together, weights, arrays_of<float>(outputs));
  } else {
    lwfm::encode_layers(maps, together, weights, arrays_of<double>(outputs));
  }
  return outputs.list();
}

// grad where it comes through the rectifier, else 0; without a branch, which half the numbers would
// take. `to` may be `grad`.
template <class T>
void mask(const T* grad, const bool* positive, std::int64_t count, T* to) {
  using Bits = std::conditional_t<sizeof(T) == sizeof(std::uint32_t), std::uint32_t, std::uint64_t>;
  lwfm::vectorized([&](auto) LWFM_INLINE_LAMBDA {
    for (std::int64_t k = 0; k < count; ++k) {
      Bits bits;
      std::memcpy(&bits, grad + k, sizeof(T));
      bits &= Bits{0} - static_cast<Bits>(positive[k]);
      std::memcpy(to + k, &bits, sizeof(T));
    }
  });
}
template <class T>
void mask(const T* grad, const T* rectified, std::int64_t count, T* to) {
  lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    constexpr int kBytes = decltype(bytes)::value;
    lwfm::Lanes<T, kBytes> slope, x;
    std::int64_t k = 0;
    for (; k + lwfm::kLanes<T, kBytes> <= count; k += lwfm::kLanes<T, kBytes>) {
      lwfm::load(grad + k, slope);
      lwfm::load(rectified + k, x);
      slope = x > T{0} ? slope : lwfm::Lanes<T, kBytes>{};
      lwfm::store(slope, to + k);
    }
    for (; k < count; ++k) to[k] = rectified[k] > T{0} ? grad[k] : T{0};
  });
}

// Where the gradient of an image's positions is summed, [P, C]: where that of its map goes, which
// will replace it.
template <class T>
T* positions_gradient(const EncodedLayers<T>& from, std::int64_t image, std::size_t l) {
  return from.maps.template view<T>(image, l).data;
}

// Adds `grads` of the positions of a tile, one image after another.
template <class T>
void add_to_positions(const EncodedLayers<T>& from, std::size_t l, std::int64_t tile,
                      const T* grads) {
  const ImageTiles tiles(from.maps);
  const std::int64_t size = from.maps.P(l) * from.maps.C(l);
  for (std::int64_t image = tiles.first(tile); image < tiles.end(tile); ++image, grads += size) {
    T* const to = positions_gradient<T>(from, image, l);
    for (std::int64_t k = 0; k < size; ++k) to[k] += grads[k];
  }
}

// Adds the gradient of the embedded positions of a tile to that of its positions, and leaves in
// `embedded` that before the last rectifier.
template <class T>
void differentiate_residual(const EncodedLayers<T>& from, std::size_t l, std::int64_t tile,
                            T* embedded) {
  const std::int64_t C = from.maps.C(l);
  const TileRows rows(ImageTiles(from.maps), tile, from.maps.P(l));
  embedded += rows.first * C;
  add_to_positions<T>(from, l, tile, embedded);
  mask(embedded, from.of[l].rectified + rows.first * C, rows.count * C, embedded);
}

// Adds what comes through the weights to the gradient of the positions of a tile, and writes that
// before the first rectifier to `hidden`, in rows `stride` apart. They may be those of `embedded`.
template <class T>
void differentiate_rows(const EncodedLayers<T>& from, std::size_t l, std::int64_t tile,
                        const T* embedded, T* hidden, std::int64_t stride) {
  thread_local std::vector<T> of_hidden, through;
  const std::int64_t C = from.maps.C(l), H = from.weights.hidden(l);
  const TileRows rows(ImageTiles(from.maps), tile, from.maps.P(l));
  of_hidden.resize(static_cast<std::size_t>(rows.count * H));
  through.resize(static_cast<std::size_t>(rows.count * C));
  T* const grads = of_hidden.data();
  CpuProducts::matrices(embedded + rows.first * C, C, rows.count, C,
                        lwfm::data_of<const T>(from.weights.second[l]), H, grads);
  mask(grads, from.of[l].hidden + rows.first * H, rows.count * H, grads);
  CpuProducts::matrices(grads, H, rows.count, H, lwfm::data_of<const T>(from.weights.first[l]), C,
                        through.data());
  add_to_positions<T>(from, l, tile, through.data());
  for (std::int64_t r = 0; r < rows.count; ++r) {
    std::copy_n(grads + r * H, H, hidden + (rows.first + r) * stride);
  }
}

// The gradient of a weight [a_columns, b_columns]: a^T b of all rows, those of a `a_stride` apart.
// Some rows of the weight are one piece of work.
template <class T>
Tensor weight_gradient(const Tensor& weight, const T* a, std::int64_t a_stride, const T* b,
                       std::int64_t rows) {
  constexpr std::int64_t kRows = 64;
  const Tensor to = lwfm::empty_tensor(weight, weight.sizes());
  const std::int64_t a_columns = weight.size(0), b_columns = weight.size(1);
  in_parallel((a_columns + kRows - 1) / kRows, [&](std::int64_t n) {
    const std::int64_t first = n * kRows;
    CpuProducts::transposed(a + first, a_stride, rows, std::min(kRows, a_columns - first), b,
                            b_columns, lwfm::data_of<T>(to) + first * b_columns);
  });
  return to;
}

// The gradients of the maps of one image, in place of those of its positions.
template <class T>
void differentiate_image(const EncodedLayers<T>& from, bool together, std::int64_t image) {
  thread_local std::vector<T> copies;
  const std::size_t L = from.maps.layers();
  copies.clear();
  for (std::size_t l = 0; l < L; ++l) {
    const T* const grad = positions_gradient<T>(from, image, l);
    copies.insert(copies.end(), grad, grad + from.maps.P(l) * from.maps.C(l));
  }
  std::vector<lwfm::LayerPositionsGradient<T>> layers;
  const T* copy = copies.data();
  for (std::size_t l = 0; l < L; ++l) {
    const std::int64_t size = from.maps.P(l) * from.maps.C(l);
    layers.push_back(
        {from.of[l].positions + image * size, copy, nullptr, from.maps.template view<T>(image, l)});
    copy += size;
  }
  for_centered(L, together,
               [&](auto bytes, std::size_t first, std::size_t count) LWFM_INLINE_LAMBDA {
                 lwfm::centered_positions_backward<decltype(bytes)::value>(
                     layers.data() + first, static_cast<std::int64_t>(count));
               });
}

template <class T>
TensorList differentiate(const EncodedGradients& inputs, bool together) {
  EncodedLayers<T> from{inputs.maps, inputs.weights, {}};
  for (std::size_t l = 0; l < inputs.positions.size(); ++l) {
    const bool embedded = !inputs.hidden.empty();
    from.of.push_back({lwfm::data_of<const T>(inputs.positions[l]), nullptr, nullptr, nullptr,
                       nullptr, embedded ? lwfm::data_of<const T>(inputs.hidden[l]) : nullptr,
                       embedded ? lwfm::data_of<const bool>(inputs.rectified[l]) : nullptr});
    const std::vector<const T*> grads = lwfm::images_of<const T>(inputs.positions_grads[l]);
    in_parallel(from.maps.images(), [&](std::int64_t image) {
      std::copy_n(grads[static_cast<std::size_t>(image)], from.maps.P(l) * from.maps.C(l),
                  positions_gradient<T>(from, image, l));
    });
  }
  TensorList all = inputs.maps.tensors();
  for (std::size_t l = 0; l < inputs.embedded_grads.size(); ++l) {
    const Tensor embedded = torch::stable::clone(inputs.embedded_grads[l]);
    for (const Tensor& grad : lwfm::differentiate_embedding(from, l, lwfm::data_of<T>(embedded))) {
      all.push_back(grad);
    }
  }
  lwfm::differentiate_centering(from, together);
  return all;
}

// grads: of positions, then of embedded; images: of each batch; heights: of the maps of each layer.
// -> gradients of the maps, then of the weights.
TensorList encode_maps_backward_cpu(TensorList grads, TensorList positions, TensorList weights,
                                    TensorList hidden, TensorList rectified, Sizes images,
                                    Sizes heights, bool joined, bool together) {
  const EncodedGradients inputs(grads, positions, weights, hidden, rectified, images, heights,
                                joined);
  return inputs.positions[0].scalar_type() == ScalarType::Float
             ? differentiate<float>(inputs, together)
             : differentiate<double>(inputs, together);
}

}  // namespace

namespace lwfm {

template <class T>
void encode_layers(const MapBatches& maps, bool together, const EmbeddingWeightsOfLayers& weights,
                   const std::vector<EncodedArrays<T>>& to) {
  maps.require_centering(together);
  const ImageTiles tiles(maps);
  in_parallel(tiles.count(), [&](std::int64_t tile) {
    for (std::int64_t image = tiles.first(tile); image < tiles.end(tile); ++image) {
      center_image(maps, together, to, image);
    }
    for (std::size_t l = 0; weights.exist() && l < maps.layers(); ++l) {
      embed_rows(weights, to[l], l, maps.C(l), TileRows(tiles, tile, maps.P(l)));
    }
  });
}

template void encode_layers(const MapBatches&, bool, const EmbeddingWeightsOfLayers&,
                            const std::vector<EncodedArrays<float>>&);
template void encode_layers(const MapBatches&, bool, const EmbeddingWeightsOfLayers&,
                            const std::vector<EncodedArrays<double>>&);

// Gradients of hidden numbers take the memory of those of embedded positions where they have room.
template <class T>
TensorList differentiate_embedding(const EncodedLayers<T>& from, std::size_t l, T* embedded) {
  const std::int64_t C = from.maps.C(l), H = from.weights.hidden(l),
                     rows = from.maps.images() * from.maps.P(l),
                     tiles = ImageTiles(from.maps).count();
  in_parallel(tiles, [&](std::int64_t tile) { differentiate_residual(from, l, tile, embedded); });
  const Tensor second =
      weight_gradient(from.weights.second[l], embedded, C, from.of[l].hidden, rows);
  const std::unique_ptr<T[]> own(H > C ? new T[static_cast<std::size_t>(rows * H)] : nullptr);
  T* const hidden = H > C ? own.get() : embedded;
  const std::int64_t stride = std::max(C, H);
  in_parallel(tiles, [&](std::int64_t tile) {
    differentiate_rows<T>(from, l, tile, embedded, hidden, stride);
  });
  return {weight_gradient(from.weights.first[l], hidden, stride, from.of[l].positions, rows),
          second};
}

template TensorList differentiate_embedding(const EncodedLayers<float>&, std::size_t, float*);
template TensorList differentiate_embedding(const EncodedLayers<double>&, std::size_t, double*);

template <class T>
void differentiate_centering(const EncodedLayers<T>& from, bool together) {
  from.maps.require_centering(together);
  in_parallel(from.maps.images(),
              [&](std::int64_t image) { differentiate_image(from, together, image); });
}

template void differentiate_centering(const EncodedLayers<float>&, bool);
template void differentiate_centering(const EncodedLayers<double>&, bool);

}  // namespace lwfm

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "encode_maps(Tensor[] maps, int[] dims, bool joined, bool together, Tensor[] weights, "
      "bool record) -> Tensor[]");
  library.def(
      "encode_maps_backward(Tensor[] grads, Tensor[] positions, Tensor[] weights, Tensor[] hidden, "
      "Tensor[] rectified, int[] images, int[] heights, bool joined, bool together) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("encode_maps", TORCH_BOX(&encode_maps_cpu));
  library.impl("encode_maps_backward", TORCH_BOX(&encode_maps_backward_cpu));
}
