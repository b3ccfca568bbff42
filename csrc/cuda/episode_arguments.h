// What lwfm::episodes and its backward hand to their kernels; the letters of
// core/matching/episode.h. Plain C++, for the host and the kernels. Everything is contiguous and in
// the memory of one device.
//
// Lists of images and classes are not read on the host. Kernels clamp what they read from them, so
// that wrong lists give wrong numbers, but touch no other memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"

namespace lwfm {

// The most layers of an episode on CUDA.
constexpr int kMaxEpisodeLayers = 16;

// Which images make the episodes. Queries of a launch may be a part of those of one episode, which
// begins at first_query; pointers to what belongs to queries are those of the first one.
struct EpisodeLists {
  std::int64_t images;  // of the pool
  std::int64_t E, S, Q, way;
  const std::int64_t* order;    // [S]
  const std::int64_t* begin;    // [way + 1]
  const std::int64_t* support;  // [E, S], or null: the first images of the pool
  const std::int64_t* query;    // [E, Q], or null: those after them
  std::int64_t first_query;

  LWFM_HOST_DEVICE static std::int64_t clamp(std::int64_t n, std::int64_t least,
                                             std::int64_t most) {
    return n < least ? least : n > most ? most : n;
  }
  // Which of an episode's S support images is number n of those sorted by class.
  LWFM_HOST_DEVICE std::int64_t support_number(std::int64_t n) const {
    return clamp(order[n], 0, S - 1);
  }
  // Images of the pool.
  LWFM_HOST_DEVICE std::int64_t support_image(std::int64_t e, std::int64_t n) const {
    const std::int64_t number = support_number(n);
    return support == nullptr ? number : clamp(support[e * S + number], 0, images - 1);
  }
  LWFM_HOST_DEVICE std::int64_t query_image(std::int64_t e, std::int64_t q) const {
    return query == nullptr ? S + first_query + q : clamp(query[e * Q + q], 0, images - 1);
  }
};

// As EpisodeOptions, with what follows from them.
struct EpisodeChoices {
  bool weighs;  // layer-wise embedding at a temperature that is finite
  double temperature;
  int top_k;  // 0: no matching, -1: all
  bool mean_over_layers, merge_shots;

  LWFM_HOST_DEVICE bool matches() const { return top_k != 0; }
  LWFM_HOST_DEVICE int matched(int P) const { return top_k < 0 ? P : top_k; }
};

// One layer. Of the pool: squares, grams, embedded, embedded_squares.
template <class T>
struct EpisodeLayerArguments {
  int P;
  std::int64_t C, D;
  const T* products;        // [E, Q P, S P] of the queries' positions and the support images'
  const T* class_products;  // [E, S P, S P] of the support images' positions
  const T* positions;       // [n, P, C]
  const T* squares;         // [n, P]
  const T* grams;           // [n, P, P]
  const T* embedded;        // [n, P, D], or null
  const T* embedded_squares;
  // What the forward pass writes and the backward pass reads; support images sorted by class.
  T *a, *b;                  // [E, Q, S, P]
  std::int32_t* assignment;  // [E, Q, S, P]: position of the query, -1 for none; or null
  T* cosines;                // [E, Q, S, P], or null
};

template <class T>
struct EpisodeArguments {
  EpisodeLists lists;
  EpisodeChoices choices;
  int layers;
  EpisodeLayerArguments<T> of[kMaxEpisodeLayers];
  // [E, Q, 3 way + layers problems]: sums over layers of inner, square_s and square_q of each
  // class, then matched similarities of each layer; problems: see EpisodeProblems.
  T* sums;
  T *base, *matching;  // [E, Q, way]
  T* features;         // [E, Q, channels of all layers], or null
  void* workspace;     // episode_workspace bytes

  LWFM_HOST_DEVICE std::int64_t problems() const {
    return choices.merge_shots ? lists.way : lists.S;
  }
  LWFM_HOST_DEVICE std::int64_t sums_of_query() const {
    return 3 * lists.way + layers * problems();
  }
  LWFM_HOST_DEVICE std::int64_t channels() const {
    std::int64_t sum = 0;
    for (int l = 0; l < layers; ++l) sum += of[l].C;
    return sum;
  }
};

// Gradients of one layer. Those of images are in the order of the lists, whatever their class: in
// them is what a matrix library made of the gradients of products; the rest is added.
template <class T>
struct EpisodeLayerGradients {
  T* products;           // [E, Q P, S P], of `products`
  T* embedded_products;  // [E, Q P, S P], of the products of embedded positions; or null
  // [E, Q, S, P], support images sorted by class: what each pair of images contributes to the
  // gradients of squared norms, and how much of itself is taken off an embedded position, or null
  T *row_squares, *column_squares;
  T *row_along, *column_along;
  T *support, *query;                    // [E, S, P, C], [E, Q, P, C]
  T *support_embedded, *query_embedded;  // of D; or null
};

// `of` is what the forward pass was given and what it recorded.
template <class T>
struct EpisodeGradientArguments {
  EpisodeArguments<T> of;
  const T *base, *matching;  // [E, Q, way]
  const T* features;         // [E, Q, channels of all layers], or null
  T* terms;                  // [E, Q, way, 3], scratch: gradients of inner, square_s, square_q
  EpisodeLayerGradients<T> to[kMaxEpisodeLayers];
};

}  // namespace lwfm
