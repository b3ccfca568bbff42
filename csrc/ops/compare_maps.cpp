// lwfm::compare_maps, the logits of one episode from the maps of its images: lwfm::encode_maps and
// lwfm::episodes in one call, with the arguments of both
//   -> logits (base + matching_weight matching) / temperature [Q, way], features [Q, C] or empty;
//   then, if `record`, the memory of what the backward pass reads, a single tensor: see Arrays.
// The backward pass takes the gradients of logits and, if there are any, features, and that memory;
// it returns the gradients of the maps, then of the weights. Those of positions are written where
// those of the maps go, which replace them. For the CPU alone: a small episode takes as long there
// as the calls around its kernels, and the tensors that pass through them.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "encode_maps_cpu.h"
#include "episodes_cpu.h"

namespace {

using lwfm::EmbeddingWeightsOfLayers;
using lwfm::EncodedArrays;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeResults;
using lwfm::EpisodeSizes;
using lwfm::MapBatches;
using lwfm::PoolLayer;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

// Everything but the numbers of an episode.
struct Episode {
  const MapBatches& maps;
  const EmbeddingWeightsOfLayers& weights;
  EpisodeSizes sizes;
  EpisodeOptions options;
  EpisodeImages images;
  double matching_weight, temperature;

  Episode(const MapBatches& of_maps, const EmbeddingWeightsOfLayers& of_layers, const Tensor& order,
          const Tensor& begin, double attention_temperature, std::int64_t top_k,
          bool mean_over_layers, bool merge_shots, double weight, double of_logits, bool features)
      : maps(of_maps),
        weights(of_layers),
        sizes(maps.images(), std::nullopt, std::nullopt, order, begin),
        options(lwfm::episode_options(positions_of(maps), attention_temperature, top_k,
                                      mean_over_layers, merge_shots, features)),
        images(
            lwfm::episode_images(maps.images(), sizes, std::nullopt, std::nullopt, order, begin)),
        matching_weight(weight),
        temperature(of_logits) {}

  std::int64_t channels() const {
    std::int64_t sum = 0;
    for (std::size_t l = 0; l < maps.layers(); ++l) sum += maps.C(l);
    return sum;
  }

 private:
  static Sizes positions_of(const MapBatches& maps) {
    Sizes positions;
    for (std::size_t l = 0; l < maps.layers(); ++l) {
      positions.push_back(maps.P(l));
      lwfm::require(positions.back() > 0, "images need at least one position");
    }
    return positions;
  }
};

// Takes arrays from memory one after another, each at the beginning of a cache line; what lies
// between them is cleared if they are to be written. Without memory it counts.
class Arena {
 public:
  Arena() = default;
  Arena(void* memory, bool clear) : memory_(static_cast<std::byte*>(memory)), clear_(clear) {}

  template <class T>
  T* take(std::int64_t count) {
    constexpr std::int64_t kLine = 64;
    const auto bytes = count * static_cast<std::int64_t>(sizeof(T)),
               lines = (bytes + kLine - 1) / kLine * kLine;
    std::byte* const at = memory_ == nullptr ? nullptr : memory_ + bytes_;
    if (clear_) std::fill(at + bytes, at + lines, std::byte{0});
    bytes_ += lines;
    return reinterpret_cast<T*>(at);
  }

  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* memory_ = nullptr;
  bool clear_ = false;
  std::int64_t bytes_ = 0;
};

// What is encoded of all images, and what the backward pass reads besides.
template <class T>
struct Arrays {
  std::vector<EncodedArrays<T>> encoded;
  T* terms = nullptr;
  std::vector<typename EpisodeResults<T>::OfLayer> recorded;

  Arrays(const Episode& episode, bool record, Arena& arena) {
    const std::int64_t n = episode.maps.images(), S = episode.sizes.S, Q = episode.sizes.Q;
    for (std::size_t l = 0; l < episode.maps.layers(); ++l) {
      const std::int64_t P = episode.maps.P(l), C = episode.maps.C(l);
      encoded.push_back({arena.take<T>(n * P * C), arena.take<T>(n * P), arena.take<T>(n * P * P),
                         nullptr, nullptr, nullptr, nullptr});
      recorded.push_back({});
      if (episode.weights.exist()) {
        encoded[l].embedded = arena.take<T>(n * P * C);
        encoded[l].embedded_squares = arena.take<T>(n * P);
        if (record) encoded[l].hidden = arena.take<T>(n * P * episode.weights.hidden(l));
        if (record) encoded[l].rectified = arena.take<bool>(n * P * C);
      }
      if (!record) continue;
      const std::int64_t pairs = S * P * Q;
      recorded[l].a = arena.take<T>(pairs);
      recorded[l].b = arena.take<T>(pairs);
      if (!episode.options.matches()) continue;
      recorded[l].assignment = arena.take<std::int32_t>(pairs);
      recorded[l].cosines = arena.take<T>(pairs);
    }
    if (record) terms = arena.take<T>(episode.sizes.way * 3 * Q);
  }

  // Numbers of T in memory for all.
  static std::int64_t count(const Episode& episode, bool record) {
    Arena arena;
    Arrays<T>(episode, record, arena);
    return arena.bytes() / static_cast<std::int64_t>(sizeof(T));
  }

  std::vector<PoolLayer<T>> pool(const MapBatches& maps) const {
    std::vector<PoolLayer<T>> layers;
    for (std::size_t l = 0; l < encoded.size(); ++l) {
      const EncodedArrays<T>& of = encoded[l];
      layers.push_back({maps.P(l), maps.C(l), of.embedded == nullptr ? 0 : maps.C(l), of.positions,
                        of.squares, of.grams, of.embedded, of.embedded_squares});
    }
    return layers;
  }
};

template <class T>
TensorList compare(const Episode& episode, bool together, bool record) {
  const Tensor& like = episode.maps.like();
  const std::int64_t Q = episode.sizes.Q, way = episode.sizes.way;
  TensorList all{
      lwfm::empty_tensor(like, Sizes{Q, way}),
      lwfm::empty_tensor(like, episode.options.features ? Sizes{Q, episode.channels()} : Sizes{0}),
      lwfm::empty_tensor(like, Sizes{Arrays<T>::count(episode, record)})};
  Arena arena(lwfm::data_of<T>(all[2]), record);
  Arrays<T> arrays(episode, record, arena);
  lwfm::encode_layers(episode.maps, together, episode.weights, arrays.encoded);
  T* const logits = lwfm::data_of<T>(all[0]);
  std::vector<T> matching(static_cast<std::size_t>(Q * way));
  lwfm::compare_episodes<T>(
      arrays.pool(episode.maps), episode.images, episode.options,
      {logits, matching.data(), episode.options.features ? lwfm::data_of<T>(all[1]) : nullptr,
       arrays.terms, arrays.recorded});
  const auto weight = static_cast<T>(episode.matching_weight),
             temperature = static_cast<T>(episode.temperature);
  for (std::size_t k = 0; k < matching.size(); ++k) {
    logits[k] = (logits[k] + weight * matching[k]) / temperature;
  }
  if (!record) all.pop_back();
  return all;
}

TensorList compare_maps_cpu(TensorList tensors, Sizes dims, bool joined, bool together,
                            TensorList all_weights, Tensor order, Tensor begin,
                            double attention_temperature, std::int64_t top_k, bool mean_over_layers,
                            bool merge_shots, double matching_weight, double temperature,
                            bool features, bool record) {
  const MapBatches maps(tensors, dims, joined);
  const EmbeddingWeightsOfLayers weights(all_weights, dims, maps.like().scalar_type());
  const Episode episode(maps, weights, order, begin, attention_temperature, top_k, mean_over_layers,
                        merge_shots, matching_weight, temperature, features);
  return maps.like().scalar_type() == ScalarType::Float
             ? compare<float>(episode, together, record)
             : compare<double>(episode, together, record);
}

// Writes the gradients of positions to those of the maps, and returns those of the weights. A layer
// of embedded positions after the other, so that there is memory for one of them.
template <class T>
TensorList differentiate_layers(const Episode& episode, const Arrays<T>& arrays,
                                const lwfm::OuterGradients<T>& outer,
                                const lwfm::EncodedLayers<T>& to) {
  const MapBatches& maps = episode.maps;
  const std::int64_t n = maps.images();
  std::vector<lwfm::PoolGradient<T>> positions(maps.layers());
  std::vector<lwfm::LayerRecord<T>> recorded;
  for (std::size_t l = 0; l < maps.layers(); ++l) {
    for (std::int64_t image = 0; image < n; ++image) {
      positions[l].push_back(maps.view<T>(image, l).data);
    }
    const auto& of = arrays.recorded[l];
    recorded.push_back({of.a, of.b, of.assignment, of.cosines});
  }
  TensorList of_weights;
  std::unique_ptr<T[]> embedded;
  const auto begin = [&](std::size_t l) {
    const std::int64_t size = maps.P(l) * maps.C(l);
    embedded.reset(new T[static_cast<std::size_t>(n * size)]);
    lwfm::PoolGradient<T> of_images;
    for (std::int64_t image = 0; image < n; ++image) {
      of_images.push_back(embedded.get() + image * size);
    }
    return of_images;
  };
  const auto end = [&](std::size_t l) {
    for (Tensor& grad : lwfm::differentiate_embedding(to, l, embedded.get())) {
      of_weights.push_back(std::move(grad));
    }
    embedded.reset();
  };
  lwfm::differentiate_episodes<T>(arrays.pool(maps), n, episode.images, episode.options, outer,
                                  recorded, positions, {begin, end});
  return of_weights;
}

// grads: of logits, and of features if they are wanted.
template <class T>
TensorList differentiate(const Episode& episode, const TensorList& grads, const Tensor& memory,
                         bool together) {
  lwfm::require(memory.is_contiguous() && memory.numel() == Arrays<T>::count(episode, true),
                "the memory must be that of the forward pass");
  Arena arena(const_cast<T*>(lwfm::data_of<const T>(memory)), false);
  const Arrays<T> arrays(episode, true, arena);
  const T* const of_logits = lwfm::data_of<const T>(grads[0]);
  std::vector<T> base, matching;
  for (std::int64_t k = 0; k < grads[0].numel(); ++k) {
    base.push_back(of_logits[k] / static_cast<T>(episode.temperature));
    matching.push_back(static_cast<T>(episode.matching_weight) * base.back());
  }
  lwfm::EncodedLayers<T> to{episode.maps, episode.weights, {}};
  for (const EncodedArrays<T>& of : arrays.encoded) {
    to.of.push_back({of.positions, nullptr, nullptr, nullptr, nullptr, of.hidden, of.rectified});
  }
  const T* const of_features =
      episode.options.features ? lwfm::data_of<const T>(grads[1]) : nullptr;
  const TensorList of_weights = differentiate_layers<T>(
      episode, arrays,
      {base.data(), matching.data(), of_features, episode.channels(), arrays.terms}, to);
  lwfm::differentiate_centering(to, together);
  TensorList all = episode.maps.tensors();
  all.insert(all.end(), of_weights.begin(), of_weights.end());
  return all;
}

// grads: of logits, and of features if they are wanted; images: of each batch; heights and widths:
// of the maps of each layer.
TensorList compare_maps_backward_cpu(TensorList grads, Tensor memory, TensorList all_weights,
                                     Tensor order, Tensor begin, Sizes images, Sizes dims,
                                     Sizes heights, Sizes widths, bool joined, bool together,
                                     double attention_temperature, std::int64_t top_k,
                                     bool mean_over_layers, bool merge_shots,
                                     double matching_weight, double temperature, bool features) {
  const ScalarType dtype = memory.scalar_type();
  const MapBatches maps = lwfm::empty_maps(memory, images, dims, heights, widths, joined);
  const EmbeddingWeightsOfLayers weights(all_weights, dims, dtype);
  const Episode episode(maps, weights, order, begin, attention_temperature, top_k, mean_over_layers,
                        merge_shots, matching_weight, temperature, features);
  const std::vector<Sizes> shapes{{episode.sizes.Q, episode.sizes.way},
                                  {episode.sizes.Q, episode.channels()}};
  lwfm::require(grads.size() == (features ? 2 : 1),
                "gradients must be those of logits, and of features if they are wanted");
  for (std::size_t k = 0; k < grads.size(); ++k) {
    lwfm::require(lwfm::has_shape(grads[k], shapes[k]) && grads[k].scalar_type() == dtype,
                  "gradients must have the shape and the dtype of logits and features");
    grads[k] = lwfm::contiguous_of(grads[k]);
  }
  return dtype == ScalarType::Float ? differentiate<float>(episode, grads, memory, together)
                                    : differentiate<double>(episode, grads, memory, together);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "compare_maps(Tensor[] maps, int[] dims, bool joined, bool together, Tensor[] weights, "
      "Tensor order, Tensor begin, float attention_temperature, int top_k, bool mean_over_layers, "
      "bool merge_shots, float matching_weight, float temperature, bool features, bool record) "
      "-> Tensor[]");
  library.def(
      "compare_maps_backward(Tensor[] grads, Tensor memory, Tensor[] weights, Tensor order, "
      "Tensor begin, int[] images, int[] dims, int[] heights, int[] widths, bool joined, "
      "bool together, float attention_temperature, int top_k, bool mean_over_layers, "
      "bool merge_shots, float matching_weight, float temperature, bool features) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("compare_maps", TORCH_BOX(&compare_maps_cpu));
  library.impl("compare_maps_backward", TORCH_BOX(&compare_maps_backward_cpu));
}
