// Episodes backward, the part of the embedded positions, which only matches read: first of all
// queries, which leave what each match contributes, then of all support images.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matching/episode_backward.h"

namespace lwfm {

// One layer of one episode.
template <class T>
struct EmbeddedGradientLayer {
  EpisodeLayer<T> layer;
  const LayerRecord<T>& record;
  const LayerGradient<T>& positions;  // with the gradients of similarities
  ImageGradients<T> to;               // [P, D] of each image; written
  std::int64_t e;
  std::vector<T> support_norms, query_norms;  // [S, P], [Q, P]: 1 / |embedded|
  std::vector<T> matches;                     // [Q, S, P], of matched cosines

  void read_norms() {
    const EpisodeImages& images = layer.images;
    const auto read = [&](std::vector<T>& norms, std::int64_t image) {
      const T* const squares = layer.pool.embedded_squares + image * layer.pool.P;
      for (std::int64_t p = 0; p < layer.pool.P; ++p) norms.push_back(inverse_norm(squares[p]));
    };
    for (std::int64_t n = 0; n < images.S; ++n) read(support_norms, images.support_image(e, n));
    for (std::int64_t q = 0; q < images.Q; ++q) read(query_norms, images.query_image(e, q));
    matches.assign(static_cast<std::size_t>(images.Q * images.S * layer.pool.P), T{0});
  }

  // Where the record has the positions of query q and sorted support image n.
  std::int64_t match_of(std::int64_t q, std::int64_t n) const {
    return ((e * layer.images.Q + q) * layer.images.S + n) * layer.pool.P;
  }
  T* match(std::int64_t q, std::int64_t n) {
    return matches.data() + (q * layer.images.S + n) * layer.pool.P;
  }
};

template <int kBytes, class T>
LWFM_INLINE void add_matches_of_query(TileGradientWorkspace<T>& workspace,
                                      EmbeddedGradientLayer<T>& of, std::int64_t q) {
  const PoolLayer<T>& pool = of.layer.pool;
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = pool.P, D = pool.D, top_k = of.layer.options.matched(P),
                     own = images.query_image(of.e, q);
  T* const grad = of.to.query[static_cast<std::size_t>(q)];
  std::fill_n(grad, P * D, T{0});
  workspace.along.assign(static_cast<std::size_t>(P), T{0});
  const auto& matching = workspace.forward.matching;
  for_matched_problems(
      of.layer, of.positions, q,
      [&](std::int64_t first, std::int64_t rows, T of_problem) LWFM_INLINE_LAMBDA {
        select_recorded(workspace.forward.matching, workspace.assignment, of.layer, of.record, of.e,
                        q, first, rows);
        const T share = of_problem / static_cast<T>(top_k);
        for (std::int64_t k = 0; k < top_k; ++k) {
          const auto& match = matching.matches[static_cast<std::size_t>(k)];
          const std::int64_t j = workspace.assignment[match.row], i = match.row % P,
                             image = images.support_image(of.e, first + match.row / P);
          of.match(q, first)[match.row] = share;
          const T inverse = of.query_norms[q * P + j];
          add_multiple<kBytes>(pool.embedded_position(image, i),
                               share * of.support_norms[first * P + match.row] * inverse, D,
                               grad + j * D);
          if (inverse < static_cast<T>(1.0 / kCosineEps)) {
            workspace.along[j] += share * match.cosine * inverse * inverse;
          }
        }
      });
  finish_gradient<kBytes>(Features<T>{pool.embedded_position(own, 0), nullptr, D}, P,
                          {grad, workspace.along.data()});
}

template <int kBytes, class T>
LWFM_INLINE void add_matches_of_support(TileGradientWorkspace<T>& workspace,
                                        EmbeddedGradientLayer<T>& of, std::int64_t n) {
  const PoolLayer<T>& pool = of.layer.pool;
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = pool.P, D = pool.D, own = images.support_image(of.e, n);
  T* const grad = of.to.support[static_cast<std::size_t>(n)];
  std::fill_n(grad, P * D, T{0});
  workspace.along.assign(static_cast<std::size_t>(P), T{0});
  for (std::int64_t q = 0; q < images.Q; ++q) {
    const std::int64_t image = images.query_image(of.e, q);
    for (std::int64_t i = 0; i < P; ++i) {
      const T share = of.match(q, n)[i];
      if (share == T{0}) continue;
      const std::int64_t at = of.match_of(q, n) + i, j = of.record.assignment[at];
      const T inverse = of.support_norms[n * P + i];
      add_multiple<kBytes>(pool.embedded_position(image, j),
                           share * inverse * of.query_norms[q * P + j], D, grad + i * D);
      if (inverse < static_cast<T>(1.0 / kCosineEps)) {
        workspace.along[i] += share * of.record.cosines[at] * inverse * inverse;
      }
    }
  }
  finish_gradient<kBytes>(Features<T>{pool.embedded_position(own, 0), nullptr, D}, P,
                          {grad, workspace.along.data()});
}

// Query q; leaves what its matches contribute for the support images.
template <class T>
void differentiate_embedded_query(TileGradientWorkspace<T>& workspace, EmbeddedGradientLayer<T>& of,
                                  std::int64_t q) {
  vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    add_matches_of_query<decltype(bytes)::value>(workspace, of, q);
  });
}

// Sorted support image n, from all queries in turn.
template <class T>
void differentiate_embedded_support(TileGradientWorkspace<T>& workspace,
                                    EmbeddedGradientLayer<T>& of, std::int64_t n) {
  vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    add_matches_of_support<decltype(bytes)::value>(workspace, of, n);
  });
}

}  // namespace lwfm
