// lwfm::episodes and its backward on the CPU, as functions of the structures of core/matching.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/matching/episode_backward.h"
#include "core/matching/episode_run.h"
#include "episodes.h"

namespace lwfm {

template <class T>
std::vector<PoolLayer<T>> pool_layers(const EncodedPool& pool) {
  std::vector<PoolLayer<T>> layers;
  for (std::size_t l = 0; l < pool.layers(); ++l) {
    const bool embedded = !pool.embedded.empty();
    layers.push_back({pool.P(l), pool.C(l), embedded ? pool.embedded[l].size(2) : 0,
                      data_of<const T>(pool.positions[l]), data_of<const T>(pool.squares[l]),
                      data_of<const T>(pool.grams[l]),
                      embedded ? data_of<const T>(pool.embedded[l]) : nullptr,
                      embedded ? data_of<const T>(pool.embedded_squares[l]) : nullptr});
  }
  return layers;
}

using OptionalTensor = std::optional<Tensor>;

// pool_images: n.
inline EpisodeImages episode_images(std::int64_t pool_images, const EpisodeSizes& sizes,
                                    const OptionalTensor& support, const OptionalTensor& query,
                                    const Tensor& order, const Tensor& begin) {
  using Index = const std::int64_t;
  const auto* const first = data_of<Index>(begin);
  const auto* const images = data_of<Index>(order);
  const auto within = [](Index* list, std::int64_t count, std::int64_t end) {
    return std::all_of(list, list + count, [&](Index n) { return n >= 0 && n < end; });
  };
  require(within(images, sizes.S, sizes.S), "order must list images 0..S-1");
  require(first[0] == 0 && first[sizes.way] == sizes.S &&
              std::adjacent_find(first, first + sizes.way + 1, std::greater_equal<>()) ==
                  first + sizes.way + 1,
          "begin must ascend from 0 to S");
  EpisodeImages of{sizes.E, sizes.S, sizes.Q, {sizes.way, first, images}, nullptr, nullptr};
  if (!sizes.listed) return of;
  of.support = data_of<Index>(*support);
  of.query = data_of<Index>(*query);
  require(within(of.support, sizes.E * sizes.S, pool_images) &&
              within(of.query, sizes.E * sizes.Q, pool_images),
          "lists of images must name images of the pool");
  return of;
}

// Where the results of the forward pass go.
template <class T>
struct EpisodeResults {
  // What the backward pass reads of one layer; null where there is nothing.
  struct OfLayer {
    T *a, *b;                  // [E, S, P, Q]
    std::int32_t* assignment;  // [E, Q, S, P]
    T* cosines;                // [E, Q, S, P]
  };

  T *base, *matching;  // [E, Q, way]
  T* features;         // [E, Q, C]; null if not wanted
  T* terms;            // [E, way, 3, Q]: sums over layers; null if nothing is recorded
  std::vector<OfLayer> recorded;
};

// See episodes.cpp.
template <class T>
void compare_episodes(const std::vector<PoolLayer<T>>& layers, const EpisodeImages& images,
                      const EpisodeOptions& options, const EpisodeResults<T>& to);

// Where the gradients of the images of the pool go, a pointer for each image.
template <class T>
using PoolGradient = std::vector<T*>;

// Where those of the embedded positions [P, D] of one layer after the other go: `begin` returns it,
// `end` is called once all are written.
template <class T>
struct EmbeddedPoolGradients {
  std::function<PoolGradient<T>(std::size_t)> begin;
  std::function<void(std::size_t)> end;
};

// The gradients of positions [P, C] of all layers, then those of embedded positions if there are
// any; pool_images: n, recorded: of each layer. See episodes_backward.cpp.
template <class T>
void differentiate_episodes(const std::vector<PoolLayer<T>>& layers, std::int64_t pool_images,
                            const EpisodeImages& images, const EpisodeOptions& options,
                            const OuterGradients<T>& outer,
                            const std::vector<LayerRecord<T>>& recorded,
                            const std::vector<PoolGradient<T>>& positions,
                            const EmbeddedPoolGradients<T>& embedded);

}  // namespace lwfm
