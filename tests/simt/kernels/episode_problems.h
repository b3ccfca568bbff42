// Episodes of random images in heap buffers of exactly their size, with the products that the matrix
// library computes on a GPU, and what the core makes of them.
#pragma once

#include "core/matching/episode_backward.h"
#include "cuda/episode_kernels.h"
#include "pair_problems.h"

namespace tests {

// Products by plain loops.
struct PlainProducts {
  template <class T>
  static void rows(const T* a, std::int64_t a_rows, const T* b, std::int64_t b_rows, std::int64_t C,
                   T* to) {
    for (std::int64_t r = 0; r < a_rows * b_rows; ++r) {
      to[r] = T{0};
      for (std::int64_t c = 0; c < C; ++c) to[r] += a[r / b_rows * C + c] * b[r % b_rows * C + c];
    }
  }
  template <class T>
  static void matrices(const T* a, std::int64_t a_stride, std::int64_t rows, std::int64_t columns,
                       const T* b, std::int64_t C, T* to) {
    for (std::int64_t n = 0; n < rows * C; ++n) {
      to[n] = T{0};
      for (std::int64_t k = 0; k < columns; ++k) to[n] += a[n / C * a_stride + k] * b[k * C + n % C];
    }
  }
  template <class T>
  static void transposed(const T* a, std::int64_t a_stride, std::int64_t rows,
                         std::int64_t columns, const T* b, std::int64_t C, T* to) {
    for (std::int64_t n = 0; n < columns * C; ++n) {
      to[n] = T{0};
      for (std::int64_t k = 0; k < rows; ++k) to[n] += a[k * a_stride + n / C] * b[k * C + n % C];
    }
  }
};

struct EpisodeShape {
  const char* name;
  std::int64_t E, Q;
  std::vector<std::int64_t> shots;
  std::vector<std::int64_t> P;  // of each layer
  std::int64_t C, D;            // D: 0 without an embedding
  bool listed;
  lwfm::EpisodeOptions options;

  std::size_t layers() const { return P.size(); }
  std::int64_t way() const { return static_cast<std::int64_t>(shots.size()); }
  std::int64_t S() const {
    std::int64_t sum = 0;
    for (const std::int64_t K : shots) sum += K;
    return sum;
  }
};

template <class T>
struct EpisodePool {
  std::int64_t P, C, D;
  std::vector<T> positions, squares, grams, embedded, embedded_squares;

  EpisodePool(std::int64_t images, std::int64_t p, std::int64_t c, std::int64_t d,
              std::mt19937_64& engine)
      : P(p),
        C(c),
        D(d),
        positions(random_vector<T>(images * p * c, engine)),
        squares(size(images * p)),
        grams(size(images * p * p)),
        embedded(random_vector<T>(images * p * d, engine)),
        embedded_squares(size(d > 0 ? images * p : 0)) {
    for (std::int64_t n = 0; n < images; ++n) {
      const T* const x = positions.data() + n * P * C;
      PlainProducts::rows(x, P, x, P, C, grams.data() + n * P * P);
    }
    for (std::int64_t r = 0; r < images * P; ++r) {
      PlainProducts::rows(positions.data() + r * C, 1, positions.data() + r * C, 1, C,
                          squares.data() + r);
      if (D == 0) continue;
      PlainProducts::rows(embedded.data() + r * D, 1, embedded.data() + r * D, 1, D,
                          embedded_squares.data() + r);
    }
  }

  lwfm::PoolLayer<T> view() const {
    return {P,
            C,
            D,
            positions.data(),
            squares.data(),
            grams.data(),
            D > 0 ? embedded.data() : nullptr,
            D > 0 ? embedded_squares.data() : nullptr};
  }
};

template <class T>
struct Episodes {
  EpisodeShape shape;
  std::int64_t S, images;
  std::vector<std::int64_t> begin{0}, order, support, query;
  std::vector<EpisodePool<T>> pool;
  std::vector<std::vector<T>> products, class_products;  // of each layer
  // Of each layer and episode: the positions of its support images and of its queries, the embedded
  // ones.
  std::vector<std::vector<std::vector<T>>> supports, queries, support_embedded, query_embedded;

  Episodes(const EpisodeShape& of, std::mt19937_64& engine)
      : shape(of), S(of.S()), images(S + of.Q) {
    for (const std::int64_t K : shape.shots) begin.push_back(begin.back() + K);
    for (std::int64_t n = 0; n < S; ++n) order.push_back(n);
    std::shuffle(order.begin(), order.end(), engine);
    if (shape.listed) list_images(engine);
    for (const std::int64_t P : shape.P) pool.emplace_back(images, P, shape.C, shape.D, engine);
    for (std::size_t l = 0; l < shape.layers(); ++l) multiply(l);
  }

  std::int64_t channels() const { return shape.C * static_cast<std::int64_t>(shape.layers()); }
  std::int64_t problems() const { return shape.options.merge_shots ? shape.way() : S; }
  std::int64_t support_image(std::int64_t e, std::int64_t s) const {
    return shape.listed ? support[size(e * S + s)] : s;
  }
  std::int64_t query_image(std::int64_t e, std::int64_t q) const {
    return shape.listed ? query[size(e * shape.Q + q)] : S + q;
  }

  lwfm::EpisodeImages view() const {
    return {shape.E,
            S,
            shape.Q,
            {shape.way(), begin.data(), order.data()},
            shape.listed ? support.data() : nullptr,
            shape.listed ? query.data() : nullptr};
  }

  lwfm::EpisodeArguments<T> arguments() const {
    const lwfm::EpisodeOptions& options = shape.options;
    lwfm::EpisodeArguments<T> result{};
    const lwfm::EpisodeImages lists = view();
    result.lists = {images,       shape.E,      S,           shape.Q, shape.way(), order.data(),
                    begin.data(), lists.support, lists.query, 0};
    result.choices = {!std::isinf(options.temperature), options.temperature,
                      static_cast<int>(options.top_k), options.mean_over_layers,
                      options.merge_shots};
    result.layers = static_cast<int>(shape.layers());
    for (std::size_t l = 0; l < shape.layers(); ++l) {
      const lwfm::PoolLayer<T> layer = pool[l].view();
      result.of[l] = {static_cast<int>(layer.P), layer.C, layer.D, products[l].data(),
                      class_products[l].data(), layer.positions, layer.squares, layer.grams,
                      layer.embedded, layer.embedded_squares, nullptr, nullptr, nullptr, nullptr};
    }
    return result;
  }

 private:
  // Images may be in several episodes, and not all are in one.
  void list_images(std::mt19937_64& engine) {
    images += 3;
    std::vector<std::int64_t> all(size(images));
    for (std::int64_t n = 0; n < images; ++n) all[size(n)] = n;
    for (std::int64_t e = 0; e < shape.E; ++e) {
      std::shuffle(all.begin(), all.end(), engine);
      support.insert(support.end(), all.begin(), all.begin() + S);
      query.insert(query.end(), all.begin() + S, all.begin() + S + shape.Q);
    }
  }

  void multiply(std::size_t l) {
    const std::int64_t P = pool[l].P, C = pool[l].C;
    std::vector<T> own(size(shape.E * S * P * S * P)), with_queries(size(shape.E * shape.Q * P * S * P));
    for (auto* of_layers : {&supports, &queries, &support_embedded, &query_embedded}) {
      of_layers->emplace_back(size(shape.E));
    }
    for (std::int64_t e = 0; e < shape.E; ++e) {
      std::vector<T>&support = supports[l][size(e)], &query = queries[l][size(e)];
      for (std::int64_t s = 0; s < S; ++s) {
        append(pool[l].positions, P * C, support_image(e, s), support);
        append(pool[l].embedded, P * pool[l].D, support_image(e, s), support_embedded[l][size(e)]);
      }
      for (std::int64_t q = 0; q < shape.Q; ++q) {
        append(pool[l].positions, P * C, query_image(e, q), query);
        append(pool[l].embedded, P * pool[l].D, query_image(e, q), query_embedded[l][size(e)]);
      }
      PlainProducts::rows(support.data(), S * P, support.data(), S * P, C,
                          own.data() + e * S * P * S * P);
      PlainProducts::rows(query.data(), shape.Q * P, support.data(), S * P, C,
                          with_queries.data() + e * shape.Q * P * S * P);
    }
    class_products.push_back(std::move(own));
    products.push_back(std::move(with_queries));
  }

  static void append(const std::vector<T>& from, std::int64_t numbers, std::int64_t image,
                     std::vector<T>& to) {
    const auto first = from.begin() + image * numbers;
    to.insert(to.end(), first, first + numbers);
  }
};

// What the kernels write; `assignment` and `cosines` of each layer only if it is recorded.
template <class T>
struct EpisodeResults {
  std::vector<T> base, matching, features, sums;
  std::vector<std::vector<T>> a, b, cosines;
  std::vector<std::vector<std::int32_t>> assignment;
  std::vector<unsigned char> workspace;

  explicit EpisodeResults(const Episodes<T>& of) {
    const EpisodeShape& shape = of.shape;
    const std::int64_t all = shape.E * shape.Q;
    const auto layers = static_cast<std::int64_t>(shape.layers());
    base.assign(size(all * shape.way()), T{-7});
    matching = base;
    features.assign(size(shape.options.features ? all * of.channels() : 0), T{-7});
    sums.assign(size(all * (3 * shape.way() + layers * of.problems())), T{-7});
    for (const std::int64_t P : shape.P) {
      a.emplace_back(size(all * of.S * P), T{-7});
      assignment.emplace_back(size(shape.options.matches() ? all * of.S * P : 0), -7);
    }
    b = a;
    cosines = a;
  }

  lwfm::EpisodeArguments<T> arguments(const Episodes<T>& of, bool record) {
    lwfm::EpisodeArguments<T> result = of.arguments();
    result.sums = sums.data();
    result.base = base.data();
    result.matching = matching.data();
    result.features = of.shape.options.features ? features.data() : nullptr;
    for (std::size_t l = 0; l < a.size(); ++l) {
      result.of[l].a = a[l].data();
      result.of[l].b = b[l].data();
      if (!record || !of.shape.options.matches()) continue;
      result.of[l].assignment = assignment[l].data();
      result.of[l].cosines = cosines[l].data();
    }
    workspace.resize(lwfm::episode_workspace(result));
    result.workspace = workspace.data();
    return result;
  }
};

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

  explicit CoreEpisodes(const Episodes<T>& of)
      : images(of.view()), options(of.shape.options) {
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
      results.push_back({terms[l].data(), options.matches() ? similarities[l].data() : nullptr,
                         options.features ? features.data() + static_cast<std::int64_t>(l) * of.shape.C
                                          : nullptr,
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
        lwfm::compare_tile(workspace, layer, supports[size(e) * layers.size() + l], tile, results[l],
                           failure, PlainProducts{});
      });
    }
    CHECK(!failure.failed());
  }
};

// Gradients of the images of each episode and layer: support images and queries as they are listed.
template <class T>
struct EpisodeGradients {
  std::vector<std::vector<T>> support, query, support_embedded, query_embedded;

  explicit EpisodeGradients(const Episodes<T>& of) {
    const bool embedded = of.shape.options.matches();
    for (const EpisodePool<T>& layer : of.pool) {
      const std::int64_t D = embedded ? layer.D : 0, rows = of.shape.E * layer.P;
      support.emplace_back(size(rows * of.S * layer.C), T{-7});
      query.emplace_back(size(rows * of.shape.Q * layer.C), T{-7});
      support_embedded.emplace_back(size(rows * of.S * D), T{-7});
      query_embedded.emplace_back(size(rows * of.shape.Q * D), T{-7});
    }
  }
};

// Gradients of what the forward pass returns.
template <class T>
struct OutputGradients {
  std::vector<T> base, matching, features;

  OutputGradients(const Episodes<T>& of, std::mt19937_64& engine)
      : base(random_vector<T>(of.shape.E * of.shape.Q * of.shape.way(), engine)),
        matching(random_vector<T>(of.shape.E * of.shape.Q * of.shape.way(), engine)),
        features(random_vector<T>(
            of.shape.options.features ? of.shape.E * of.shape.Q * of.channels() : 0, engine)) {}
};

// The core's gradients from its own forward pass.
template <class T>
EpisodeGradients<T> gradients_of_core(const Episodes<T>& of, const CoreEpisodes<T>& core,
                                      const OutputGradients<T>& outputs) {
  EpisodeGradients<T> to(of);
  const lwfm::EpisodeImages& images = core.images;
  const std::int64_t E = images.E, Q = images.Q, S = images.S, way = images.classes.way;
  const std::size_t L = core.layers.size();
  std::vector<T> terms(size(E * way * 3 * Q));
  for (std::size_t n = 0; n < terms.size(); ++n) {
    for (std::size_t l = 0; l < L; ++l) terms[n] += core.terms[l][n];
  }
  const lwfm::OuterGradients<T> outer{
      outputs.base.data(), outputs.matching.data(),
      of.shape.options.features ? outputs.features.data() : nullptr, of.channels(), terms.data()};
  std::vector<lwfm::LayerRecord<T>> records;
  for (std::size_t l = 0; l < L; ++l) {
    records.push_back({core.a[l].data(), core.b[l].data(), core.assignment[l].data(),
                       core.cosines[l].data()});
  }
  lwfm::TileGradientWorkspace<T> workspace;
  const lwfm::TileList<T> tiles(core.layers, 0, Q);
  for (std::int64_t e = 0; e < E; ++e) {
    std::vector<lwfm::LayerGradient<T>> gradients(L);
    std::vector<lwfm::EpisodeGradientLayer<T>> layers;
    for (std::size_t l = 0; l < L; ++l) {
      gradients[l].reserve(core.layers[l], images, core.options, Q);
      layers.push_back({{core.layers[l], images, core.options, static_cast<std::int64_t>(l)},
                        core.supports[size(e) * L + l], outer, records[l],
                        static_cast<std::int64_t>(l) * of.shape.C, gradients[l], e, 0, Q});
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
        lwfm::differentiate_class(workspace, layers[l], c, true, PlainProducts{});
      }
      const auto copy = [&](const std::vector<T>& from, std::int64_t from_image,
                            std::int64_t to_image, std::vector<T>& result, std::int64_t numbers) {
        std::copy_n(from.begin() + from_image * numbers, numbers, result.begin() + to_image * numbers);
      };
      const std::int64_t numbers = of.pool[l].P * of.pool[l].C,
                         embedded = to.query_embedded[l].empty() ? 0 : of.pool[l].P * of.pool[l].D;
      for (std::int64_t n = 0; n < S; ++n) {
        const std::int64_t s = e * S + of.order[size(n)];
        copy(gradients[l].support, n, s, to.support[l], numbers);
        if (embedded > 0) copy(gradients[l].support_embedded, n, s, to.support_embedded[l], embedded);
      }
      for (std::int64_t q = 0; q < Q; ++q) {
        copy(gradients[l].query, q, e * Q + q, to.query[l], numbers);
        if (embedded > 0) copy(gradients[l].query_embedded, q, e * Q + q, to.query_embedded[l], embedded);
      }
    }
  }
  return to;
}

constexpr double kNoTemperature = std::numeric_limits<double>::infinity();

// temperature, top_k, mean over layers, merged shots, features
inline std::vector<EpisodeShape> episode_shapes() {
  return {
      {"two layers, unequal shots", 1, 3, {2, 1, 3}, {9, 9}, 12, 7, false, {2.0, 1, false, false, true}},
      {"lists, mean, layers of unequal size", 2, 3, {2, 2}, {4, 9}, 8, 0, true, {5.0, -1, true, false, true}},
      {"merged", 2, 2, {3, 1, 5}, {9, 4}, 6, 5, true, {2.0, 3, false, true, false}},
      {"merged, not embedded", 1, 3, {2, 2}, {9}, 6, 0, false, {2.0, -1, true, true, false}},
      {"one position", 1, 2, {1, 2}, {1}, 3, 0, false, {1.0, 1, false, false, false}},
      {"no weights", 1, 2, {2, 1}, {9}, 5, 0, false, {kNoTemperature, 2, false, false, true}},
      {"no matching", 2, 2, {1, 2}, {9, 9}, 5, 0, true, {2.0, 0, false, false, false}},
      {"more positions than lanes", 1, 1, {1, 2}, {36}, 5, 4, false, {2.0, 2, false, false, false}},
      {"no room in shared memory", 1, 1, {1}, {120}, 3, 0, false, {2.0, 1, false, false, false}},
      {"merged, no room in shared memory", 1, 1, {20, 1}, {16}, 3, 0, false, {2.0, 2, false, true, false}},
  };
}

}  // namespace tests
