// Episodes of random images in heap buffers of exactly their size, with the products that the
// matrix library computes on a GPU.
#pragma once

#include "core/matching/episode.h"
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
      for (std::int64_t k = 0; k < columns; ++k)
        to[n] += a[n / C * a_stride + k] * b[k * C + n % C];
    }
  }
  template <class T>
  static void transposed(const T* a, std::int64_t a_stride, std::int64_t rows, std::int64_t columns,
                         const T* b, std::int64_t C, T* to) {
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
    multiply();
    for (std::int64_t r = 0; D > 0 && r < images * P; ++r) {
      PlainProducts::rows(embedded.data() + r * D, 1, embedded.data() + r * D, 1, D,
                          embedded_squares.data() + r);
    }
  }

  // What encoding makes of the positions.
  void multiply() {
    for (std::size_t r = 0; r < squares.size(); ++r) {
      const T* const x = positions.data() + static_cast<std::int64_t>(r) * C;
      PlainProducts::rows(x, 1, x, 1, C, squares.data() + r);
      const std::int64_t p = static_cast<std::int64_t>(r) % P;
      PlainProducts::rows(x, 1, x - p * C, P, C, grams.data() + static_cast<std::int64_t>(r) * P);
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
    result.lists = {images,       shape.E,       S,           shape.Q, shape.way(), order.data(),
                    begin.data(), lists.support, lists.query, 0};
    result.choices = {!std::isinf(options.temperature), options.temperature,
                      static_cast<int>(options.top_k), options.mean_over_layers,
                      options.merge_shots};
    result.layers = static_cast<int>(shape.layers());
    for (std::size_t l = 0; l < shape.layers(); ++l) {
      const lwfm::PoolLayer<T> layer = pool[l].view();
      result.of[l] = {static_cast<int>(layer.P),
                      layer.C,
                      layer.D,
                      products[l].data(),
                      class_products[l].data(),
                      layer.positions,
                      layer.squares,
                      layer.grams,
                      layer.embedded,
                      layer.embedded_squares,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};
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
    std::vector<T> own(size(shape.E * S * P * S * P)),
        with_queries(size(shape.E * shape.Q * P * S * P));
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

// `record`: whether assignment and cosines are compared, too.
template <class T>
void require_equal(const Episodes<T>& of, const EpisodeResults<T>& actual,
                   const EpisodeResults<T>& expected, bool record) {
  const int before = check::failures;
  const double terms = 16.0 * static_cast<double>(of.S * of.shape.P[0] + of.shape.C);
  CHECK(close(actual.base, expected.base, terms));
  CHECK(close(actual.matching, expected.matching, terms));
  CHECK(close(actual.features, expected.features, terms));
  CHECK(close(actual.sums, expected.sums, terms));
  for (std::size_t l = 0; l < actual.a.size(); ++l) {
    CHECK(close(actual.a[l], expected.a[l], terms));
    CHECK(close(actual.b[l], expected.b[l], terms));
    if (!record || !of.shape.options.matches()) continue;
    CHECK(actual.assignment[l] == expected.assignment[l]);
    CHECK(close(actual.cosines[l], expected.cosines[l], terms));
  }
  if (check::failures > before) std::fprintf(stderr, "of: %s\n", of.shape.name);
}

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

constexpr double kNoTemperature = std::numeric_limits<double>::infinity();

// temperature, top_k, mean over layers, merged shots, features
inline std::vector<EpisodeShape> episode_shapes() {
  return {
      {"two layers, unequal shots",
       1,
       3,
       {2, 1, 3},
       {9, 9},
       12,
       7,
       false,
       {2.0, 1, false, false, true}},
      {"lists, mean, layers of unequal size",
       2,
       3,
       {2, 2},
       {4, 9},
       8,
       0,
       true,
       {5.0, -1, true, false, true}},
      {"merged", 2, 2, {3, 1, 5}, {9, 4}, 6, 5, true, {2.0, 3, false, true, false}},
      {"merged, not embedded", 1, 3, {2, 2}, {9}, 6, 0, false, {2.0, -1, true, true, false}},
      {"more shots than warps", 1, 1, {4, 1, 1}, {2}, 5, 0, false, {2.0, 1, false, false, false}},
      {"few positions", 2, 1, {2, 1}, {2, 3}, 5, 3, true, {2.0, 2, false, false, true}},
      {"one position", 1, 2, {1, 2}, {1}, 3, 0, false, {1.0, 1, false, false, false}},
      {"no weights", 1, 2, {2, 1}, {9}, 5, 0, false, {kNoTemperature, 2, false, false, true}},
      {"no matching", 2, 2, {1, 2}, {9, 9}, 5, 0, true, {2.0, 0, false, false, false}},
      {"more positions than lanes", 1, 1, {1, 2}, {36}, 5, 4, false, {2.0, 2, false, false, false}},
      {"no room in shared memory", 1, 1, {1}, {104}, 3, 0, false, {2.0, 1, false, false, false}},
      {"merged, no room in shared memory",
       1,
       1,
       {20, 1},
       {16},
       3,
       0,
       false,
       {2.0, 2, false, true, false}},
  };
}

}  // namespace tests
