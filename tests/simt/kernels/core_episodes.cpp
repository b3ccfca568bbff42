#include "core_episodes.h"

#include "core/matching/episode_embedded_gradient.h"
#include "core/matching/episode_support_gradient.h"

namespace tests {

namespace {

// The core's results of all episodes, with its record in its own layout.
template <class T>
struct CoreEpisodes {
  std::vector<lwfm::PoolLayer<T>> layers;
  lwfm::EpisodeImages images;
  lwfm::EpisodeOptions options;
  std::vector<lwfm::EpisodeSupport<T>> supports;  // of each episode, of each layer
  std::vector<std::vector<T>> terms, similarities, a, b, cosines;
  std::vector<std::vector<std::int32_t>> assignment;
  std::vector<T> features;
  std::vector<lwfm::LayerResults<T>> results;

  explicit CoreEpisodes(const Episodes<T>& of) : images(of.view()), options(of.shape.options) {
    const std::int64_t E = images.E, Q = images.Q, S = images.S;
    const std::size_t L = of.shape.layers();
    features.resize(size(options.features ? E * Q * of.channels() : 0));
    terms.resize(L, std::vector<T>(size(E * images.classes.way * 3 * Q)));
    similarities.resize(L, std::vector<T>(size(E * of.problems() * Q)));
    for (std::size_t l = 0; l < L; ++l) {
      const std::int64_t P = of.shape.P[l];
      layers.push_back(of.pool[l].view());
      a.emplace_back(size(E * S * P * Q));
      b.emplace_back(size(E * S * P * Q));
      cosines.emplace_back(size(E * Q * S * P));
      assignment.emplace_back(size(E * Q * S * P));
    }
    for (std::size_t l = 0; l < L; ++l) {
      results.push_back(
          {terms[l].data(), options.matches() ? similarities[l].data() : nullptr,
           options.features ? features.data() + static_cast<std::int64_t>(l) * of.shape.C : nullptr,
           of.channels(), a[l].data(), b[l].data(),
           options.matches() ? assignment[l].data() : nullptr, cosines[l].data()});
    }
    supports.resize(size(E) * L);
    for (std::int64_t e = 0; e < E; ++e) compare(e);
  }

  lwfm::EpisodeSums<T> sums() const { return {images, options, results}; }

 private:
  void compare(std::int64_t e) {
    lwfm::TileWorkspace<T> workspace;
    lwfm::FirstFailure failure;
    const lwfm::TileList<T> tiles(layers, 0, images.Q);
    for (std::size_t l = 0; l < layers.size(); ++l) {
      lwfm::EpisodeSupport<T>& support = supports[size(e) * layers.size() + l];
      support.reserve(layers[l], images);
      for (std::int64_t c = 0; c < images.classes.way; ++c) {
        support.read_class(layers[l], images, e, c, PlainProducts{});
      }
    }
    for (std::int64_t n = 0; n < tiles.per_episode(); ++n) {
      tiles.run(e, n, [&](std::size_t l, const lwfm::QueryTile& tile) {
        const lwfm::EpisodeLayer<T> layer{layers[l], images, options, static_cast<std::int64_t>(l)};
        lwfm::compare_tile(workspace, layer, supports[size(e) * layers.size() + l], tile,
                           results[l], failure, PlainProducts{});
      });
    }
    CHECK(!failure.failed());
  }
};

// The core's results in the layout of the kernels' ones.
template <class T>
void read_core(const Episodes<T>& of, const CoreEpisodes<T>& core, EpisodeResults<T>& to) {
  const lwfm::EpisodeImages& images = core.images;
  const std::int64_t E = images.E, Q = images.Q, S = images.S, way = images.classes.way;
  const auto L = static_cast<std::int64_t>(core.layers.size());
  const lwfm::EpisodeSums<T> sums = core.sums();
  to.features = core.features;
  for (std::int64_t n = 0; n < E * Q; ++n) {
    const std::int64_t e = n / Q, q = n % Q;
    T* const of_query = to.sums.data() + n * (3 * way + L * of.problems());
    for (std::int64_t c = 0; c < way; ++c) {
      to.base[size(n * way + c)] = sums.base(e, q, c);
      to.matching[size(n * way + c)] = sums.matching(e, q, c);
      for (int k = 0; k < 3; ++k) of_query[3 * c + k] = sums.term(k, e, q, c);
    }
    for (std::int64_t k = 0; k < L * of.problems(); ++k) {
      const std::int64_t l = k / of.problems(), problem = k % of.problems();
      if (!of.shape.options.matches()) continue;
      of_query[3 * way + k] =
          core.similarities[size(l)][size((e * of.problems() + problem) * Q + q)];
    }
  }
  for (std::size_t l = 0; l < core.layers.size(); ++l) {
    const std::int64_t rows = S * core.layers[l].P;
    for (std::int64_t n = 0; n < E * Q * rows; ++n) {
      const std::int64_t e = n / rows / Q, q = n / rows % Q, r = n % rows;
      to.a[l][size(n)] = core.a[l][size((e * rows + r) * Q + q)];
      to.b[l][size(n)] = core.b[l][size((e * rows + r) * Q + q)];
    }
    if (!of.shape.options.matches()) continue;
    to.assignment[l] = core.assignment[l];
    to.cosines[l] = core.cosines[l];
  }
}

// Where the gradients of the images of episode e go, of `numbers` numbers each.
template <class T>
lwfm::ImageGradients<T> images_of(const Episodes<T>& of, std::int64_t e, std::vector<T>& support,
                                  std::vector<T>& query, std::int64_t numbers) {
  lwfm::ImageGradients<T> images;
  for (std::int64_t n = 0; n < of.S; ++n) {
    images.support.push_back(support.data() + (e * of.S + of.order[size(n)]) * numbers);
  }
  for (std::int64_t q = 0; q < of.shape.Q; ++q) {
    images.query.push_back(query.data() + (e * of.shape.Q + q) * numbers);
  }
  return images;
}

}  // namespace

template <class T>
EpisodeResults<T> results_of_core(const Episodes<T>& of) {
  EpisodeResults<T> expected(of);
  read_core(of, CoreEpisodes<T>(of), expected);
  return expected;
}

template <class T>
EpisodeGradients<T> gradients_of_core(const Episodes<T>& of, const OutputGradients<T>& outputs) {
  const CoreEpisodes<T> core(of);
  EpisodeGradients<T> to(of);
  const lwfm::EpisodeImages& images = core.images;
  const std::int64_t E = images.E, Q = images.Q, S = images.S, way = images.classes.way;
  const std::size_t L = core.layers.size();
  std::vector<T> terms(size(E * way * 3 * Q));
  for (std::size_t n = 0; n < terms.size(); ++n) {
    for (std::size_t l = 0; l < L; ++l) terms[n] += core.terms[l][n];
  }
  const lwfm::OuterGradients<T> outer{outputs.base.data(), outputs.matching.data(),
                                      of.shape.options.features ? outputs.features.data() : nullptr,
                                      of.channels(), terms.data()};
  std::vector<lwfm::LayerRecord<T>> records;
  for (std::size_t l = 0; l < L; ++l) {
    records.push_back(
        {core.a[l].data(), core.b[l].data(), core.assignment[l].data(), core.cosines[l].data()});
  }
  lwfm::TileGradientWorkspace<T> workspace;
  const lwfm::TileList<T> tiles(core.layers, 0, Q);
  for (std::int64_t e = 0; e < E; ++e) {
    std::vector<lwfm::LayerGradient<T>> gradients(L);
    std::vector<lwfm::EpisodeGradientLayer<T>> layers;
    for (std::size_t l = 0; l < L; ++l) {
      const lwfm::PoolLayer<T>& layer = core.layers[l];
      gradients[l].positions = images_of(of, e, to.support[l], to.query[l], layer.P * layer.C);
      gradients[l].reserve(layer, images, core.options, Q);
      layers.push_back({{core.layers[l], images, core.options, static_cast<std::int64_t>(l)},
                        core.supports[size(e) * L + l],
                        outer,
                        records[l],
                        static_cast<std::int64_t>(l) * of.shape.C,
                        gradients[l],
                        e,
                        0,
                        Q});
    }
    for (std::int64_t q = 0; core.options.matches() && q < Q; ++q) {
      lwfm::differentiate_reductions(workspace, layers, q);
    }
    for (std::int64_t n = 0; n < tiles.per_episode(); ++n) {
      tiles.run(e, n, [&](std::size_t l, const lwfm::QueryTile& tile) {
        lwfm::differentiate_tile(workspace, layers[l], tile, PlainProducts{});
      });
    }
    for (std::size_t l = 0; l < L; ++l) {
      for (std::int64_t c = 0; c < way; ++c) {
        lwfm::differentiate_class(workspace, layers[l], c, PlainProducts{});
      }
      if (to.query_embedded[l].empty()) continue;
      lwfm::EmbeddedGradientLayer<T> embedded{
          layers[l].layer,
          records[l],
          gradients[l],
          images_of(of, e, to.support_embedded[l], to.query_embedded[l],
                    core.layers[l].P * core.layers[l].D),
          e,
          {},
          {},
          {}};
      embedded.read_norms();
      for (std::int64_t q = 0; q < Q; ++q) {
        lwfm::differentiate_embedded_query(workspace, embedded, q);
      }
      for (std::int64_t n = 0; n < S; ++n) {
        lwfm::differentiate_embedded_support(workspace, embedded, n);
      }
    }
  }
  return to;
}

template EpisodeResults<float> results_of_core(const Episodes<float>&);
template EpisodeResults<double> results_of_core(const Episodes<double>&);
template EpisodeGradients<float> gradients_of_core(const Episodes<float>&,
                                                   const OutputGradients<float>&);
template EpisodeGradients<double> gradients_of_core(const Episodes<double>&,
                                                    const OutputGradients<double>&);

}  // namespace tests
