// Episodes backward, the part of the queries: the gradients of positions from those of the base
// term, the matched similarity and the queries' features. Products of positions are computed again;
// weights, assignments and matched cosines are those of the forward pass. Embedded positions have
// only matches: see episode_embedded_gradient.h.
//
// The gradient of a pair's products [P, P] is multiplied with the positions of either side; squared
// norms and products of an image's or a class's own positions X have gradients G [rows, rows],
// which contribute 2 G X. Every sum is taken in the order of queries and support images, whatever
// the number of threads.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "core/matching/episode_forward.h"

namespace lwfm {

// What comes in from outside, and the sums over layers of the forward pass.
template <class T>
struct OuterGradients {
  const T *base, *matching;  // [E, Q, way]
  const T* features;         // [E, Q, all channels], or null
  std::int64_t feature_stride;
  const T* terms;  // [E, way, 3, Q]
};

// What the forward pass left of one layer.
template <class T>
struct LayerRecord {
  const T *a, *b;                  // [E, S, P, Q]
  const std::int32_t* assignment;  // [E, Q, S, P]
  const T* cosines;                // [E, Q, S, P]
};

// Where the gradients of the images of an episode go, those of an image one after another.
template <class T>
struct ImageGradients {
  std::vector<T*> support;  // [S], sorted by class
  std::vector<T*> query;    // [Q]
};

// Gradients of one layer of one episode, and what its support images need of all queries.
template <class T>
struct LayerGradient {
  ImageGradients<T> positions;       // [P, C] of each image; written
  Uninitialized<T> similarities;     // [problems, Q]
  Uninitialized<T> products;         // [S P, queries of a chunk P]
  Uninitialized<T> query_positions;  // [queries of a chunk P, C], if they are lists of images
  std::vector<T> row_squares;        // [tiles, S P]

  void reserve(const PoolLayer<T>& layer, const EpisodeImages& images,
               const EpisodeOptions& options, std::int64_t chunk) {
    const std::int64_t P = layer.P, width = tile_queries<T>(P);
    products.reserve(images.S * P * P * chunk);
    if (images.query != nullptr) query_positions.reserve(chunk * P * layer.C);
    row_squares.assign(static_cast<std::size_t>((images.Q + width - 1) / width * images.S * P),
                       T{0});
    if (!options.matches()) return;
    similarities.reserve(MatchProblems{images, options.merge_shots}.count() * images.Q);
  }

  // Keeps what the embedded positions need.
  void release() {
    products = {};
    query_positions = {};
    row_squares = {};
  }
};

// Everything that the tiles of one layer of one episode share; the queries of a chunk are
// first_query, ..., first_query + chunk - 1.
template <class T>
struct EpisodeGradientLayer {
  EpisodeLayer<T> layer;
  const EpisodeSupport<T>& support;
  const OuterGradients<T>& outer;
  const LayerRecord<T>& record;
  std::int64_t channel;  // of the layer's first one among those of all layers
  LayerGradient<T>& to;
  std::int64_t e, first_query, chunk;

  std::int64_t columns() const { return layer.pool.P * chunk; }
  // Where the columns of a tile begin.
  std::int64_t column_of(const QueryTile& tile) const {
    return (tile.first - first_query) * layer.pool.P;
  }
  // The positions of the queries of the chunk, [chunk P, C].
  const T* query_positions() const {
    const EpisodeImages& images = layer.images;
    return images.query == nullptr ? layer.pool.position(images.query_image(e, first_query), 0)
                                   : to.query_positions.data();
  }
  const T* features_of(std::int64_t q) const {
    return outer.features + (e * layer.images.Q + q) * outer.feature_stride + channel;
  }
};

// Memory of one thread.
template <class T>
struct TileGradientWorkspace {
  TileWorkspace<T> forward;
  std::vector<T> terms;           // [way, 3, kStride]
  std::vector<T> column_squares;  // [P, kStride]
  std::vector<T> query_grams;     // [P, P, kStride]
  std::vector<T> mean_b;          // [P, kStride]
  std::vector<T> products;        // [S P, P, count]: gradients of the products
  std::vector<T> query_rows;      // [count P, C]
  std::vector<T> own;             // [P, P] of one query, times 2
  std::vector<T> along;           // [P]: of embedded positions
  std::vector<T> gram;            // [K P, K P] of a class
  std::vector<T> weights;         // [K P, Q]
  std::vector<T> class_sums;      // [K P, count]
  std::vector<T> class_rows;      // [K P, C]: gradients of a class's positions
  std::vector<T> means;           // [Q, C]: weighted sums of a class
  std::vector<std::int64_t> assignment;

  void reset(const PoolLayer<T>& layer, const EpisodeImages& images, std::int64_t count) {
    const auto size = TileQueries<T>::size_of;
    terms.assign(size(images.classes.way * 3), T{0});
    column_squares.assign(size(layer.P), T{0});
    query_grams.assign(size(layer.P * layer.P), T{0});
    mean_b.assign(size(layer.P), T{0});
    forward.weights.assign(size(layer.P), T{0});
    products.resize(static_cast<std::size_t>(images.S * layer.P * layer.P * count));
    query_rows.resize(static_cast<std::size_t>(layer.P * count * layer.C));
    forward.positions.resize(query_rows.size());
  }
};

// The gradients of inner, square_s and square_q of all classes and one query.
template <class T>
void differentiate_base(const OuterGradients<T>& outer, const EpisodeImages& images, std::int64_t e,
                        std::int64_t q, T* terms) {
  const std::int64_t way = images.classes.way, stride = TileQueries<T>::kStride;
  for (std::int64_t c = 0; c < way; ++c) {
    const T* const sums = outer.terms + (e * way + c) * 3 * images.Q + q;
    const T grad = outer.base[(e * images.Q + q) * way + c];
    const T inner = sums[0], square_s = sums[images.Q], square_q = sums[2 * images.Q];
    const T by_s = inverse_norm(square_s), by_q = inverse_norm(square_q);
    T* const to = terms + c * 3 * stride;
    to[0] = grad * by_s * by_q;
    to[stride] = grad * inner * by_q * inverse_norm_slope(square_s);
    to[2 * stride] = grad * inner * by_s * inverse_norm_slope(square_q);
  }
}

// The most similar matches of problem images first, ..., of one query into `matching`.
template <class T>
void select_recorded(MatchingWorkspace<T>& matching, std::vector<std::int64_t>& assignment,
                     const EpisodeLayer<T>& layer, const LayerRecord<T>& record, std::int64_t e,
                     std::int64_t q, std::int64_t first, std::int64_t rows) {
  const std::int64_t at = ((e * layer.images.Q + q) * layer.images.S + first) * layer.pool.P;
  assignment.assign(record.assignment + at, record.assignment + at + rows);
  select_matches(matching, record.cosines + at, assignment.data(), rows,
                 layer.options.matched(layer.pool.P));
}

// The gradients of the matched similarities of one query, of all layers.
template <class T>
void differentiate_reductions(TileGradientWorkspace<T>& workspace,
                              const std::vector<EpisodeGradientLayer<T>>& layers, std::int64_t q) {
  const EpisodeImages& images = layers[0].layer.images;
  const EpisodeOptions& options = layers[0].layer.options;
  const MatchProblems problems{images, options.merge_shots};
  const std::int64_t e = layers[0].e, way = images.classes.way;
  for (std::int64_t c = 0; c < way; ++c) {
    const T grad = layers[0].outer.matching[(e * images.Q + q) * way + c] /
                   static_cast<T>(problems.of_class(c));
    for (std::int64_t k = 0; k < problems.of_class(c); ++k) {
      const std::int64_t first = images.classes.begin[c] + k,
                         at = (problems.first_of(c) + k) * images.Q + q;
      const T share = options.mean_over_layers ? grad / static_cast<T>(layers.size()) : T{0};
      for (const auto& each : layers) each.to.similarities.data()[at] = share;
      if (options.mean_over_layers) continue;
      std::size_t from = 0;
      T best{0};
      for (std::size_t l = 0; l < layers.size(); ++l) {
        const EpisodeLayer<T>& layer = layers[l].layer;
        select_recorded(workspace.forward.matching, workspace.assignment, layer, layers[l].record,
                        e, q, first, problems.shots(c) * layer.pool.P);
        const T similarity =
            mean_of_selected(workspace.forward.matching, options.matched(layer.pool.P));
        if (l > 0 && !is_larger(similarity, best)) continue;
        best = similarity;
        from = l;
      }
      layers[from].to.similarities.data()[at] = grad;
    }
  }
}

// Gradients of the products and squares of a query through its matches with the support images
// first, ....
template <class T>
LWFM_INLINE void differentiate_matches(TileGradientWorkspace<T>& workspace,
                                       const EpisodeGradientLayer<T>& of, const QueryTile& tile,
                                       std::int64_t lane, std::int64_t first, std::int64_t rows,
                                       T grad, T* row_squares) {
  const std::int64_t P = of.layer.pool.P, top_k = of.layer.options.matched(P);
  const TileQueries<T>& queries = workspace.forward.queries;
  select_recorded(workspace.forward.matching, workspace.assignment, of.layer, of.record, of.e,
                  tile.first + lane, first, rows);
  const T share = grad / static_cast<T>(top_k);
  constexpr T kGreatest = static_cast<T>(1.0 / kCosineEps);  // a smaller norm counts as eps
  for (std::int64_t k = 0; k < top_k; ++k) {
    const auto& match = workspace.forward.matching.matches[static_cast<std::size_t>(k)];
    const std::int64_t j = workspace.assignment[match.row], row = first * P + match.row,
                       at = j * TileQueries<T>::kStride + lane;
    const T of_row = of.support.norms[row], of_column = queries.norms[at];
    workspace.products[(row * P + j) * tile.count + lane] += share * of_row * of_column;
    const T half = T{0.5} * share * match.cosine;
    if (of_row < kGreatest) row_squares[row] -= half * of_row * of_row;
    if (of_column < kGreatest) workspace.column_squares[at] -= half * of_column * of_column;
  }
}

// Calls work(first sorted support image, its rows, gradient) for the problems of query q whose
// similarity has a gradient.
template <class T, class Work>
LWFM_INLINE void for_matched_problems(const EpisodeLayer<T>& layer, const LayerGradient<T>& to,
                                      std::int64_t q, const Work& work) {
  const EpisodeImages& images = layer.images;
  const MatchProblems problems{images, layer.options.merge_shots};
  for (std::int64_t c = 0; layer.options.matches() && c < images.classes.way; ++c) {
    for (std::int64_t k = 0; k < problems.of_class(c); ++k) {
      const T grad = to.similarities.data()[(problems.first_of(c) + k) * images.Q + q];
      if (grad == T{0}) continue;
      work(images.classes.begin[c] + k, problems.shots(c) * layer.pool.P, grad);
    }
  }
}

// G a of class c for the queries of the tile, where the class has no gram: X (X^T a).
template <class T, class Products>
void sum_class(TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
               const QueryTile& tile, std::int64_t c, const Products& products) {
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = of.layer.pool.P, C = of.layer.pool.C, row = images.classes.begin[c] * P,
                     rows = images.classes.shots(c) * P;
  const T* const positions = of.support.positions.data() + row * C;
  const T* const a = of.record.a + (of.e * images.S * P + row) * images.Q + tile.first;
  workspace.forward.class_means.resize(static_cast<std::size_t>(tile.count * C));
  workspace.class_sums.resize(static_cast<std::size_t>(rows * tile.count + kGroup<T>));
  products.transposed(a, images.Q, rows, tile.count, positions, C,
                      workspace.forward.class_means.data());
  products.rows(positions, rows, workspace.forward.class_means.data(), tile.count, C,
                workspace.class_sums.data());
}

template <class Queries, class T>
LWFM_INLINE void differentiate_classes(TileGradientWorkspace<T>& workspace,
                                       const EpisodeGradientLayer<T>& of, const QueryTile& tile,
                                       const ClassRange& classes, T* row_squares) {
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = of.layer.pool.P, stride = TileQueries<T>::kStride;
  auto& comparison = workspace.forward.template comparison<Queries>();
  for (std::int64_t c = classes.begin; c < classes.end; ++c) {
    const std::int64_t row = images.classes.begin[c] * P,
                       above = images.classes.begin[classes.begin] * P;
    const T* const raw = workspace.forward.products.values.data() + (row - above) * P * tile.count;
    ClassTile<T> all = class_tile(of.layer.pool, images, c, of.support, workspace.forward.queries,
                                  raw, of.layer.options.temperature);
    if (all.gram == nullptr) all.class_sums = workspace.class_sums.data();
    for (std::int64_t lane = 0; lane < tile.count; lane += Queries::kWidth) {
      const auto count =
          static_cast<int>(std::min<std::int64_t>(Queries::kWidth, tile.count - lane));
      const ClassTile<T> part = all.from_query(lane);
      const std::int64_t at = (of.e * images.S * P + row) * images.Q + tile.first + lane;
      comparison.read_weights(part, of.record.a + at, of.record.b + at, images.Q, count);
      const T* const terms = workspace.terms.data() + c * 3 * stride + lane;
      comparison.backward(part, count,
                          {terms, terms + stride, terms + 2 * stride,
                           of.outer.features == nullptr ? nullptr : workspace.mean_b.data() + lane,
                           workspace.products.data() + row * P * tile.count + lane, P * tile.count,
                           row_squares + row, workspace.column_squares.data() + lane,
                           workspace.query_grams.data() + lane});
      if (of.outer.features != nullptr) {
        comparison.add_mean_weights(part, images.classes.way,
                                    workspace.forward.weights.data() + lane);
      }
    }
  }
}

// The gradients of m of all classes through the features, which are (1/P) sum_j mean_c m_j q_j.
template <int kBytes, class T>
LWFM_INLINE void differentiate_features(TileGradientWorkspace<T>& workspace,
                                        const EpisodeGradientLayer<T>& of, const QueryTile& tile) {
  const std::int64_t P = of.layer.pool.P, C = of.layer.pool.C;
  const T share = T{1} / static_cast<T>(P * of.layer.images.classes.way);
  for (std::int64_t lane = 0; lane < tile.count; ++lane) {
    const T* const grad = of.features_of(tile.first + lane);
    for (std::int64_t j = 0; j < P; ++j) {
      workspace.mean_b[j * TileQueries<T>::kStride + lane] =
          share * inner_product<kBytes>(
                      workspace.forward.queries.positions + (j * tile.count + lane) * C, grad, C);
    }
  }
}

// The gradient of the positions of each query of the tile.
template <int kBytes, class T>
LWFM_INLINE void write_query_gradients(TileGradientWorkspace<T>& workspace,
                                       const EpisodeGradientLayer<T>& of, const QueryTile& tile) {
  const std::int64_t P = of.layer.pool.P, C = of.layer.pool.C, stride = TileQueries<T>::kStride;
  workspace.own.resize(static_cast<std::size_t>(P * P));
  for (std::int64_t lane = 0; lane < tile.count; ++lane) {
    const std::int64_t q = tile.first + lane, image = of.layer.images.query_image(of.e, q);
    T* const grad = of.to.positions.query[static_cast<std::size_t>(q)];
    std::copy_n(workspace.query_rows.data() + lane * P * C, P * C, grad);
    for (std::int64_t j = 0; j < P; ++j) {
      for (std::int64_t i = 0; i < P; ++i) {
        workspace.own[j * P + i] = 2 * workspace.query_grams[(j * P + i) * stride + lane];
      }
      workspace.own[j * P + j] += 2 * workspace.column_squares[j * stride + lane];
    }
    add_weighted_rows<kBytes, T>(
        [&](std::int64_t j) LWFM_INLINE_LAMBDA { return of.layer.pool.position(image, j); }, P,
        {workspace.own.data(), P, P}, C, {grad, P, C});
    for (std::int64_t j = 0; of.outer.features != nullptr && j < P; ++j) {
      add_multiple<kBytes>(
          of.features_of(q),
          workspace.forward.weights[j * stride + lane] * (T{1} / static_cast<T>(P)), C,
          grad + j * C);
    }
  }
}

// Keeps the gradients of the tile's products, query by query, and where queries are lists of images
// their positions, for the support images.
template <class T>
void keep_products(const TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
                   const QueryTile& tile) {
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = of.layer.pool.P, C = of.layer.pool.C;
  const T* from = workspace.products.data();
  for (std::int64_t row = 0; row < images.S * P; ++row, from += P * tile.count) {
    T* to = of.to.products.data() + row * of.columns() + of.column_of(tile);
    for (std::int64_t lane = 0; lane < tile.count; ++lane) {
      for (std::int64_t j = 0; j < P; ++j) *to++ = from[j * tile.count + lane];
    }
  }
  for (std::int64_t q = tile.first; images.query != nullptr && q < tile.first + tile.count; ++q) {
    std::copy_n(of.layer.pool.position(images.query_image(of.e, q), 0), P * C,
                of.to.query_positions.data() + (q - of.first_query) * P * C);
  }
}

// One layer of a tile. `products` multiplies matrices: rows(a, a_rows, b, b_rows, C, to) as in
// EpisodeSupport, and matrices(a, b, to) with views.
template <class T, class Products>
void differentiate_tile(TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
                        const QueryTile& tile, const Products& products) {
  const PoolLayer<T>& pool = of.layer.pool;
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = pool.P, C = pool.C, columns = P * tile.count;
  workspace.reset(pool, images, tile.count);
  T* const positions = workspace.forward.positions.data();
  workspace.forward.queries.read(pool, images, tile, positions);
  for (std::int64_t lane = 0; lane < tile.count; ++lane) {
    differentiate_base(of.outer, images, of.e, tile.first + lane, workspace.terms.data() + lane);
  }
  if (of.outer.features != nullptr) {
    vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      differentiate_features<decltype(bytes)::value>(workspace, of, tile);
    });
  }
  T* const row_squares = of.to.row_squares.data() + tile.first / tile_queries<T>(P) * images.S * P;
  for (std::int64_t c = 0; c < images.classes.way;) {
    const ClassRange classes = classes_from(images, c, P);
    const std::int64_t first = images.classes.begin[classes.begin],
                       rows = (images.classes.begin[classes.end] - first) * P;
    T* const raw = workspace.forward.products.resize(rows, columns);
    products.rows(of.support.positions.data() + first * P * C, rows, positions, columns, C, raw);
    if (!images.has_gram(c, P)) sum_class(workspace, of, tile, c, products);
    with_lanes<T>(P, [&](auto, auto queries) LWFM_INLINE_LAMBDA {
      differentiate_classes<decltype(queries)>(workspace, of, tile, classes, row_squares);
    });
    c = classes.end;
  }
  for (std::int64_t lane = 0;
       of.layer.options.matches() && !pool.is_embedded() && lane < tile.count; ++lane) {
    for_matched_problems(
        of.layer, of.to, tile.first + lane, [&](std::int64_t first, std::int64_t rows, T grad) {
          differentiate_matches(workspace, of, tile, lane, first, rows, grad, row_squares);
        });
  }
  keep_products(workspace, of, tile);
  products.transposed(of.to.products.data() + of.column_of(tile), of.columns(), images.S * P,
                      columns, of.support.positions.data(), C, workspace.query_rows.data());
  vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    write_query_gradients<decltype(bytes)::value>(workspace, of, tile);
  });
}

}  // namespace lwfm
