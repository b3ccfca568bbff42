// What a thread block of the kernels on episodes works on: one query of one episode and one class.
#pragma once

#include "core/matching/norms.h"
#include "episode_arguments.h"
#include "pair_blocks.cuh"
#include "sums.cuh"

namespace lwfm {

struct EpisodeClass {
  std::int64_t e, q, c;
  std::int64_t at;     // of query q of episode e among all
  std::int64_t begin;  // of the class in the list of support images
  int shots;

  EpisodeClass() = default;
  template <class T>
  __device__ EpisodeClass(const EpisodeArguments<T>& arguments, std::int64_t block,
                          int most_shots) {
    const EpisodeLists& lists = arguments.lists;
    c = block % lists.way;
    at = block / lists.way;
    q = at % lists.Q;
    e = at / lists.Q;
    begin = EpisodeLists::clamp(lists.begin[c], 0, lists.S);
    const std::int64_t end = EpisodeLists::clamp(lists.begin[c + 1], begin, lists.S);
    shots = static_cast<int>(EpisodeLists::clamp(end - begin, 0, most_shots));
  }

  // Where numbers of support image k of the class are in [E, Q, S, P].
  template <class T>
  __device__ std::int64_t row(const EpisodeArguments<T>& arguments, int P, int k) const {
    return (at * arguments.lists.S + begin + k) * P;
  }
};

// The products of the positions of one query and one support image.
template <class T>
struct EpisodeBlock {
  const T* products;  // that of position 0 of either
  std::int64_t step;  // from position to position of the query

  __device__ EpisodeBlock(const EpisodeArguments<T>& arguments,
                          const EpisodeLayerArguments<T>& layer, const EpisodeClass& of, int k) {
    const std::int64_t P = layer.P, number = arguments.lists.support_number(of.begin + k);
    step = arguments.lists.S * P;
    products = layer.products + of.at * P * step + number * P;
  }

  __device__ T at(int i, int j) const { return products[j * step + i]; }
};

// The products of the positions of two support images of one class.
template <class T>
struct ClassBlock {
  const T* products;
  std::int64_t step;  // from position to position of the first

  __device__ ClassBlock(const EpisodeArguments<T>& arguments, const EpisodeLayerArguments<T>& layer,
                        const EpisodeClass& of, int k, int other) {
    const EpisodeLists& lists = arguments.lists;
    const std::int64_t P = layer.P;
    step = lists.S * P;
    products = layer.class_products +
               (of.e * step + lists.support_number(of.begin + k) * P) * step +
               lists.support_number(of.begin + other) * P;
  }

  __device__ T at(int i, int j) const { return products[i * step + j]; }
};

// The products [P, P] of the query's positions with one another.
template <class T>
__device__ const T* gram_of_query(const EpisodeArguments<T>& arguments,
                                  const EpisodeLayerArguments<T>& layer, const EpisodeClass& of) {
  return layer.grams + arguments.lists.query_image(of.e, of.q) * std::int64_t{layer.P} * layer.P;
}

// The weights of the query's positions, averaged over the images of the class: m [P] in shared
// memory; needs a barrier before anyone reads.
template <class T>
__device__ void average_query_weights(const EpisodeArguments<T>& arguments,
                                      const EpisodeLayerArguments<T>& layer, const EpisodeClass& of,
                                      T* mean) {
  const int P = layer.P;
  const T* const b = layer.b + of.row(arguments, P, 0);
  for (int j = static_cast<int>(threadIdx.x); j < P; j += static_cast<int>(blockDim.x)) {
    T sum{0};
    for (int k = 0; k < of.shots; ++k) sum += b[k * P + j];
    mean[j] = sum / static_cast<T>(of.shots);
  }
}

// The weight of position j of a query in its features.
template <class T>
__device__ T query_weight(const EpisodeArguments<T>& arguments,
                          const EpisodeLayerArguments<T>& layer, std::int64_t at, int j,
                          int most_shots) {
  const std::int64_t way = arguments.lists.way;
  T weight{0};
  for (std::int64_t c = 0; c < way; ++c) {
    const EpisodeClass of(arguments, at * way + c, most_shots);
    const T* const b = layer.b + of.row(arguments, layer.P, 0);
    T sum{0};
    for (int k = 0; k < of.shots; ++k) sum += b[k * layer.P + j];
    weight += sum / static_cast<T>(of.shots);
  }
  return weight / (static_cast<T>(way) * static_cast<T>(layer.P));
}

// scales [shots P + P]: of the positions of images k, k + 1, ..., and of the query.
template <class T, class ScaleOf>
__device__ void stage_scales(const EpisodeArguments<T>& arguments,
                             const EpisodeLayerArguments<T>& layer, const EpisodeClass& of, int k,
                             int shots, const ScaleOf& scale_of, T* scales) {
  const int P = layer.P;
  for (int r = lane_index(); r < shots * P; r += kWarp) {
    const std::int64_t image = arguments.lists.support_image(of.e, of.begin + k + r / P);
    scales[r] = scale_of(layer.squares[image * P + r % P]);
  }
  const T* const squares = layer.squares + arguments.lists.query_image(of.e, of.q) * P;
  for (int j = lane_index(); j < P; j += kWarp) scales[shots * P + j] = scale_of(squares[j]);
}

// Copies the products of a pair to `block`, rows of pitch_of(P) for the positions of the support
// image, and the factors of both images' positions to `scales` [2 P]; needs a barrier before
// anyone reads.
template <class T, class ScaleOf>
__device__ PairView<T, true> stage_image(const EpisodeArguments<T>& arguments,
                                         const EpisodeLayerArguments<T>& layer,
                                         const EpisodeClass& of, int k, const ScaleOf& scale_of,
                                         T* scales, T* block) {
  const int P = layer.P, pitch = pitch_of(P);
  const EpisodeBlock<T> from(arguments, layer, of, k);
  for (int n = lane_index(); n < P * P; n += kWarp) {
    const int j = n / P, i = n % P;
    block[i * pitch + j] = from.at(i, j);
  }
  stage_scales(arguments, layer, of, k, 1, scale_of, scales);
  return {block, pitch, 1, scales, scales + P, P, P};
}

}  // namespace lwfm
