// Episodes forward: the base term and the matched similarity of every query with every class.
// Products of positions come from a matrix library; everything after them works on blocks of
// P x P numbers, a few queries side by side.
//
//   base     = sum_l inner / (sqrt(sum_l square_s) sqrt(sum_l square_q))     see class_comparison.h
//   matching = mean over the class's shots of max_l (or mean_l) of the mean of the top_k largest
//              cosines of matched positions
//
// Deterministic: a result does not depend on threads, on the other episodes, or on the instruction
// set where the products do not.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "core/assignment/error_message.h"
#include "core/matching/episode_tile.h"
#include "core/simd/dispatch.h"
#include "core/simd/row_products.h"

namespace lwfm {

// What the layers of the episodes leave for the sum over layers, and for the backward pass.
template <class T>
struct LayerResults {
  T* terms;         // [E, way, 3, Q]: inner, square_s, square_q
  T* similarities;  // [E, problems, Q]; null without matching
  T* features;      // [E, Q, C] in rows of feature_stride; null if not wanted
  std::int64_t feature_stride;
  // Of the backward pass; null if there is none.
  T *a, *b;                  // [E, S, P, Q]
  std::int32_t* assignment;  // [E, Q, S, P]: position of the query, -1 for none
  T* cosines;                // [E, Q, S, P]
};

// Memory of one thread.
template <class T>
struct TileWorkspace {
  TileQueries<T> queries;
  TileProducts<T> products;
  std::tuple<ClassComparison<ManyQueries<T, kNarrow>>, ClassComparison<ManyQueries<T, kWide>>,
             ClassComparison<OneQuery<T>>>
      comparisons;
  std::tuple<QueryArray<ManyQueries<T, kNarrow>>, QueryArray<ManyQueries<T, kWide>>,
             QueryArray<OneQuery<T>>>
      costs;
  MatchingWorkspace<T> matching;
  std::vector<std::int64_t> assignment;  // [count, rows] of the problems of all queries
  std::vector<T> cosines;                // the same
  std::vector<T> positions;              // [P, count, C] of the queries
  std::vector<T> weights;                // [P, kStride] of the queries
  std::vector<T> class_weights;          // [K P, count]: a of a class without products of its own
  std::vector<T> class_means;            // [count, C]: its weighted sums

  template <class Queries>
  ClassComparison<Queries>& comparison() {
    return std::get<ClassComparison<Queries>>(comparisons);
  }
};

// Everything that the tiles of one layer share.
template <class T>
struct EpisodeLayer {
  const PoolLayer<T>& pool;
  const EpisodeImages& images;
  const EpisodeOptions& options;
  std::int64_t number;  // of the layer
};

template <class T>
std::string describe_no_assignment(Status status, const MatchingWorkspace<T>& workspace,
                                   const EpisodeLayer<T>& layer, const QueryTile& tile,
                                   std::int64_t lane, std::int64_t first) {
  const EpisodeImages& images = layer.images;
  const std::int64_t P = layer.pool.P;
  const auto images_of_problem = static_cast<std::int64_t>(workspace.cost.size()) / (P * P);
  std::int64_t k = 0;  // the image with the first entry that is no number
  for (const T* cost = workspace.cost.data(); k + 1 < images_of_problem; ++k, cost += P * P) {
    if (!std::all_of(cost, cost + P * P, [](T entry) { return entry - entry == T{0}; })) break;
  }
  std::vector<std::int64_t> index{tile.first + lane, images.classes.images[first + k]};
  if (images.support != nullptr) index.insert(index.begin(), tile.e);
  const CostMatrix<T> cost{workspace.cost.data() + k * P * P, P, P, P, 1};
  const bool wide = sizeof(T) > sizeof(float);
  return describe_failure(status, cost, false, "cost", index) +
         "; features are NaN or infinite, or the norm of a position is above " +
         (wide ? "1.3e+154" : "1.8e+19") + ", whose square overflows float" + (wide ? "64" : "32");
}

// Assigns the positions of consecutive sorted support images from `first` on to those of query
// `lane`, whose costs [rows, P] are `width` apart; no position where that is impossible.
template <class T>
void assign_query(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer, std::int64_t rows,
                  std::int64_t first, std::int64_t lane, const T* costs, int width,
                  FirstFailure& failure) {
  const std::int64_t P = layer.pool.P;
  MatchingWorkspace<T>& matching = workspace.matching;
  matching.cost.resize(static_cast<std::size_t>(rows * P));
  for (std::int64_t k = 0; k < rows * P; ++k) matching.cost[k] = costs[k * width];
  const Status status = solve(CostMatrix<T>{matching.cost.data(), rows, P, P, 1}, {},
                              matching.solver, workspace.assignment.data() + lane * rows);
  if (status == Status::ok) return;
  std::fill_n(workspace.assignment.data() + lane * rows, rows, std::int64_t{-1});
  const QueryTile& queries = workspace.queries.tile;
  const std::int64_t image = layer.images.classes.images[first];
  failure.report({queries.e, queries.first + lane, image, layer.number}, [&] {
    return describe_no_assignment(status, matching, layer, queries, lane, first);
  });
}

// The cosines of all matched positions of the tile's queries, by their embedded positions. A row of
// a support image is compared with several queries at a time, so that it is read once for them.
template <int kBytes, class T>
LWFM_INLINE void compare_embedded(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                                  const EpisodeSupport<T>& support, std::int64_t first,
                                  std::int64_t rows) {
  const PoolLayer<T>& pool = layer.pool;
  const QueryTile& tile = workspace.queries.tile;
  const T* others[TileQueries<T>::kStride];
  T products[TileQueries<T>::kStride];
  const T* images[TileQueries<T>::kStride];
  for (std::int64_t lane = 0; lane < tile.count; ++lane) {
    images[lane] = pool.embedded_position(layer.images.query_image(tile.e, tile.first + lane), 0);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t row = first * pool.P + r;
    for (std::int64_t lane = 0; lane < tile.count; ++lane) {
      const std::int64_t j = workspace.assignment[lane * rows + r];
      others[lane] = images[lane] + std::max<std::int64_t>(j, 0) * pool.D;
    }
    products_with_vectors<kBytes>(support.embedded_rows[row], others, tile.count, pool.D, products);
    for (std::int64_t lane = 0; lane < tile.count; ++lane) {
      const std::int64_t j = workspace.assignment[lane * rows + r];
      const T norm = workspace.queries.embedded_norms[lane * pool.P + std::max<std::int64_t>(j, 0)];
      workspace.cosines[lane * rows + r] =
          j < 0 ? T{0} : products[lane] * (support.embedded_norms[row] * norm);
    }
  }
}

// The same by the products of the positions themselves.
template <class T>
LWFM_INLINE void compare_products(TileWorkspace<T>& workspace, const MatchTile<T>& tile) {
  for (std::int64_t lane = 0; lane < tile.queries; ++lane) {
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      const std::int64_t j = workspace.assignment[lane * tile.rows + r];
      workspace.cosines[lane * tile.rows + r] = j < 0 ? T{0} : cosine_at(tile, lane, r, j);
    }
  }
}

// All problems of class c with all queries of the tile.
template <int kBytes, class Queries, class T>
LWFM_INLINE void match_class(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                             const EpisodeSupport<T>& support, std::int64_t c, const T* raw,
                             const LayerResults<T>& to, FirstFailure& failure) {
  const EpisodeImages& images = layer.images;
  const MatchProblems problems{images, layer.options.merge_shots};
  const QueryTile tile = workspace.queries.tile;
  const std::int64_t P = layer.pool.P, rows = problems.shots(c) * P,
                     top_k = layer.options.matched(P);
  auto& costs = std::get<QueryArray<Queries>>(workspace.costs);
  workspace.assignment.resize(static_cast<std::size_t>(tile.count * rows));
  workspace.cosines.resize(static_cast<std::size_t>(tile.count * rows));
  for (std::int64_t k = 0; k < problems.of_class(c); ++k) {
    const std::int64_t first = images.classes.begin[c] + k;
    const MatchTile<T> match = match_tile(layer.pool, first, problems.shots(c), support,
                                          workspace.queries, raw + k * P * P * tile.count);
    for (std::int64_t start = 0; start < tile.count; start += Queries::kWidth) {
      tile_costs<Queries>(match, start, costs);
      for (std::int64_t lane = start; lane < std::min(start + Queries::kWidth, tile.count);
           ++lane) {
        assign_query(workspace, layer, rows, first, lane, costs.numbers() + (lane - start),
                     Queries::kWidth, failure);
      }
    }
    if (layer.pool.is_embedded()) {
      compare_embedded<kBytes>(workspace, layer, support, first, rows);
    } else {
      compare_products(workspace, match);
    }
    T* const similarity = to.similarities +
                          (tile.e * problems.count() + problems.first_of(c) + k) * images.Q +
                          tile.first;
    for (std::int64_t lane = 0; lane < tile.count; ++lane) {
      const std::int64_t* const assignment = workspace.assignment.data() + lane * rows;
      const T* const cosines = workspace.cosines.data() + lane * rows;
      similarity[lane] = mean_of_matches(workspace.matching, cosines, assignment, rows, top_k);
      if (to.assignment == nullptr) continue;
      const std::int64_t at = ((tile.e * images.Q + tile.first + lane) * images.S + first) * P;
      std::copy_n(assignment, rows, to.assignment + at);
      std::copy_n(cosines, rows, to.cosines + at);
    }
  }
}

template <class Queries, class T>
LWFM_INLINE void weigh_class(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                             std::int64_t c, const ClassTile<T>& tile, const LayerResults<T>& to) {
  const EpisodeImages& images = layer.images;
  const QueryTile& queries = workspace.queries.tile;
  auto& comparison = workspace.template comparison<Queries>();
  for (std::int64_t lane = 0; lane < queries.count; lane += Queries::kWidth) {
    const auto count =
        static_cast<int>(std::min<std::int64_t>(Queries::kWidth, queries.count - lane));
    const ClassTile<T> part = tile.from_query(lane);
    comparison.weigh(part);
    comparison.compare(part);
    T* const terms =
        to.terms + (queries.e * images.classes.way + c) * 3 * images.Q + queries.first + lane;
    write_lanes<Queries>(comparison.inner, count, terms);
    write_lanes<Queries>(comparison.square_s, count, terms + images.Q);
    write_lanes<Queries>(comparison.square_q, count, terms + 2 * images.Q);
    if (tile.gram == nullptr) {
      comparison.write_weights(tile.shots * tile.P, queries.count, count,
                               workspace.class_weights.data() + lane, nullptr);
    }
    if (to.features != nullptr) {
      comparison.add_mean_weights(part, images.classes.way, workspace.weights.data() + lane);
    }
    if (to.a != nullptr) {
      const std::int64_t at = (queries.e * images.S + images.classes.begin[c]) * tile.P * images.Q +
                              queries.first + lane;
      comparison.write_weights(tile.shots * tile.P, images.Q, count, to.a + at, to.b + at);
    }
  }
}

// The weighted mean of each query's positions, averaged over the classes.
template <int kBytes, class T>
LWFM_INLINE void write_features(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                                const LayerResults<T>& to) {
  const QueryTile& tile = workspace.queries.tile;
  const std::int64_t P = layer.pool.P, C = layer.pool.C;
  for (std::int64_t lane = 0; lane < tile.count; ++lane) {
    T* const feature =
        to.features + (tile.e * layer.images.Q + tile.first + lane) * to.feature_stride;
    std::fill_n(feature, C, T{0});
    for (std::int64_t j = 0; j < P; ++j) {
      const T weight =
          workspace.weights[j * TileQueries<T>::kStride + lane] * (T{1} / static_cast<T>(P));
      add_multiple<kBytes>(workspace.queries.positions + (j * tile.count + lane) * C, weight, C,
                           feature);
    }
  }
}

// The squared norms of the weighted means of class c, whose weights are in class_weights.
template <class T, class Products>
void square_class_means(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                        const EpisodeSupport<T>& support, std::int64_t c, const LayerResults<T>& to,
                        const Products& products) {
  const EpisodeImages& images = layer.images;
  const QueryTile& tile = workspace.queries.tile;
  const std::int64_t P = layer.pool.P, C = layer.pool.C, rows = images.classes.shots(c) * P;
  workspace.class_means.resize(static_cast<std::size_t>(tile.count * C));
  products.transposed(workspace.class_weights.data(), tile.count, rows, tile.count,
                      support.positions.data() + images.classes.begin[c] * P * C, C,
                      workspace.class_means.data());
  T* const squares = to.terms + ((tile.e * images.classes.way + c) * 3 + 1) * images.Q + tile.first;
  vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    for (std::int64_t lane = 0; lane < tile.count; ++lane) {
      const T* const mean = workspace.class_means.data() + lane * C;
      squares[lane] = inner_product<decltype(bytes)::value>(mean, mean, C) *
                      (T{1} / static_cast<T>(rows * rows));
    }
  });
}

template <int kBytes, class Queries, class T>
LWFM_INLINE void compare_classes(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                                 const EpisodeSupport<T>& support, const ClassRange& classes,
                                 const LayerResults<T>& to, FirstFailure& failure) {
  const EpisodeImages& images = layer.images;
  const std::int64_t P = layer.pool.P, step = P * P * workspace.queries.tile.count;
  for (std::int64_t c = classes.begin; c < classes.end; ++c) {
    const std::int64_t image = images.classes.begin[c] - images.classes.begin[classes.begin];
    const T* const raw = workspace.products.values.data() + image * step;
    weigh_class<Queries>(workspace, layer, c,
                         class_tile(layer.pool, images, c, support, workspace.queries, raw,
                                    layer.options.temperature),
                         to);
    if (layer.options.matches()) {
      match_class<kBytes, Queries>(workspace, layer, support, c, raw, to, failure);
    }
  }
}

// Calls body(VectorBytes, Queries) for the queries of tiles of this width.
template <class T, class Body>
void with_lanes(std::int64_t P, const Body& body) {
  vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    constexpr int kBytes = decltype(bytes)::value;
    if (tile_queries<T>(P) > 1) {
      body(bytes, ManyQueries<T, kBytes>{});
    } else {
      body(bytes, OneQuery<T>{});
    }
  });
}

// One layer of a tile, all classes.
template <class T, class Products>
void compare_tile(TileWorkspace<T>& workspace, const EpisodeLayer<T>& layer,
                  const EpisodeSupport<T>& support, const QueryTile& tile,
                  const LayerResults<T>& to, FirstFailure& failure, const Products& products) {
  const std::int64_t P = layer.pool.P, C = layer.pool.C;
  const EpisodeImages& images = layer.images;
  workspace.positions.resize(static_cast<std::size_t>(P * tile.count * C));
  workspace.queries.read(layer.pool, images, tile, workspace.positions.data());
  workspace.weights.assign(TileQueries<T>::size_of(P), T{0});
  for (std::int64_t c = 0; c < images.classes.way;) {
    const ClassRange classes = classes_from(images, c, P);
    const bool has_grams = images.has_gram(classes.begin, P);
    const std::int64_t first = images.classes.begin[classes.begin],
                       rows = (images.classes.begin[classes.end] - first) * P;
    T* const raw = workspace.products.resize(rows, P * tile.count);
    if (!has_grams) workspace.class_weights.resize(static_cast<std::size_t>(rows * tile.count));
    products.rows(support.positions.data() + first * P * C, rows, workspace.queries.positions,
                  P * tile.count, C, raw);
    with_lanes<T>(P, [&](auto bytes, auto queries) LWFM_INLINE_LAMBDA {
      compare_classes<decltype(bytes)::value, decltype(queries)>(workspace, layer, support, classes,
                                                                 to, failure);
    });
    if (!has_grams) square_class_means(workspace, layer, support, c, to, products);
    c = classes.end;
  }
  if (to.features != nullptr) {
    vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      write_features<decltype(bytes)::value>(workspace, layer, to);
    });
  }
}

// Sums and reductions over the layers for one query and class.
template <class T>
struct EpisodeSums {
  const EpisodeImages& images;
  const EpisodeOptions& options;
  const std::vector<LayerResults<T>>& layers;

  T term(std::int64_t which, std::int64_t e, std::int64_t q, std::int64_t c) const {
    T sum{0};
    for (const auto& layer : layers) {
      sum += layer.terms[((e * images.classes.way + c) * 3 + which) * images.Q + q];
    }
    return sum;
  }

  // Matched similarity of problem n over the layers.
  T over_layers(std::int64_t e, std::int64_t q, std::int64_t n) const {
    const std::int64_t at =
        (e * MatchProblems{images, options.merge_shots}.count() + n) * images.Q + q;
    T best = layers[0].similarities[at], sum = best;
    for (std::size_t l = 1; l < layers.size(); ++l) {
      const T other = layers[l].similarities[at];
      sum += other;
      if (is_larger(other, best)) best = other;
    }
    return options.mean_over_layers ? sum / static_cast<T>(layers.size()) : best;
  }

  T base(std::int64_t e, std::int64_t q, std::int64_t c) const {
    return term(0, e, q, c) * inverse_norm(term(1, e, q, c)) * inverse_norm(term(2, e, q, c));
  }

  T matching(std::int64_t e, std::int64_t q, std::int64_t c) const {
    if (!options.matches()) return T{0};
    const MatchProblems problems{images, options.merge_shots};
    T sum{0};
    for (std::int64_t k = 0; k < problems.of_class(c); ++k) {
      sum += over_layers(e, q, problems.first_of(c) + k);
    }
    return sum / static_cast<T>(problems.of_class(c));
  }
};

}  // namespace lwfm
