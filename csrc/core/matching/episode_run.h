// Whole episodes forward: support images are read, then tiles of queries are compared with them.
// The caller shares the work among threads, in_parallel(count, work) calls work(0), ...,
// work(count - 1), and multiplies matrices: see CpuProducts and SerialProducts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/matching/episode_forward.h"

namespace lwfm {

// Bytes of the support images of the episodes that are compared at a time.
constexpr std::int64_t kSupportBytes = 64 << 20;

// As many episodes as have support images of kSupportBytes.
template <class T>
std::int64_t episodes_at_a_time(const std::vector<PoolLayer<T>>& layers,
                                const EpisodeImages& images) {
  std::int64_t numbers = 1;
  for (const auto& layer : layers) {
    numbers += images.S * layer.P * layer.C + images.gram_begin(images.classes.way, layer.P);
  }
  return std::max<std::int64_t>(1,
                                kSupportBytes / (numbers * static_cast<std::int64_t>(sizeof(T))));
}

// The support images of the episodes first, ..., first + count - 1, of all layers.
template <class T, class Parallel, class Products>
std::vector<EpisodeSupport<T>> read_supports(const std::vector<PoolLayer<T>>& layers,
                                             const EpisodeImages& images, std::int64_t first,
                                             std::int64_t count, const Parallel& in_parallel,
                                             const Products& products) {
  const auto L = static_cast<std::int64_t>(layers.size());
  std::vector<EpisodeSupport<T>> supports(static_cast<std::size_t>(count * L));
  const std::int64_t way = images.classes.way;
  for (std::int64_t n = 0; n < count * L; ++n) supports[n].reserve(layers[n % L], images);
  in_parallel(count * L * way, [&](std::int64_t n) {
    const std::int64_t at = n / way, l = at % L;
    supports[at].read_class(layers[l], images, first + at / L, n % way, products);
  });
  return supports;
}

// What the layers leave for the sum over layers, in memory of its own.
template <class T>
class EpisodeTerms {
 public:
  EpisodeTerms(std::size_t layers, const EpisodeImages& images, const EpisodeOptions& options) {
    const std::int64_t of_terms = images.E * images.classes.way * 3 * images.Q,
                       of_problems =
                           images.E * MatchProblems{images, options.merge_shots}.count() * images.Q;
    terms_.resize(layers * static_cast<std::size_t>(of_terms));
    similarities_.resize(options.matches() ? layers * static_cast<std::size_t>(of_problems) : 0);
    for (std::size_t l = 0; l < layers; ++l) {
      const auto n = static_cast<std::int64_t>(l);
      T* const matched = options.matches() ? similarities_.data() + n * of_problems : nullptr;
      results.push_back(
          {terms_.data() + n * of_terms, matched, nullptr, 0, nullptr, nullptr, nullptr, nullptr});
    }
  }

  std::vector<LayerResults<T>> results;  // of each layer; what else is wanted is set by the caller

 private:
  std::vector<T> terms_, similarities_;
};

template <class T, class Parallel, class Products>
void run_episodes(const std::vector<PoolLayer<T>>& layers, const EpisodeImages& images,
                  const EpisodeOptions& options, const std::vector<LayerResults<T>>& results,
                  FirstFailure& failure, const Parallel& in_parallel, const Products& products) {
  const TileList<T> tiles(layers, 0, images.Q);
  const auto L = static_cast<std::int64_t>(layers.size());
  const std::int64_t group = episodes_at_a_time(layers, images);
  for (std::int64_t first = 0; first < images.E && images.Q > 0; first += group) {
    const std::int64_t count = std::min(group, images.E - first);
    const auto supports = read_supports(layers, images, first, count, in_parallel, products);
    in_parallel(count * tiles.per_episode(), [&](std::int64_t n) {
      thread_local TileWorkspace<T> workspace;
      const std::int64_t e = n / tiles.per_episode();
      tiles.run(first + e, n % tiles.per_episode(), [&](std::size_t l, const QueryTile& tile) {
        const EpisodeLayer<T> layer{layers[l], images, options, static_cast<std::int64_t>(l)};
        compare_tile(workspace, layer, supports[e * L + static_cast<std::int64_t>(l)], tile,
                     results[l], failure, products);
      });
    });
  }
}

}  // namespace lwfm
