// What both ways of lwfm::episodes do with the products of a query and the support images of a
// class: weights, matched similarities, and the reductions over layers and images.
#pragma once

#include <cmath>

#include "embedding_weights.cuh"
#include "episode_class.cuh"
#include "matched_similarity.cuh"
#include "pair_assignment.cuh"

namespace lwfm {

// Writes a and b of a support image and a query, from their products and the scales of
// correlations; `memory` [4 (P + P)] is of the warp. Ends with a barrier.
template <class T>
__device__ void weigh_pair(const PairView<T, true>& pair, double temperature, T* memory, T* a,
                           T* b) {
  using Group = PairGroup<true>;
  auto* const lines = reinterpret_cast<SoftmaxLine<T>*>(memory);
  find_lines<Group>(pair, static_cast<T>(temperature), lines);
  __syncwarp();
  write_weights<Group>(pair, lines, a, b);
  __syncwarp();  // before the memory is used again
}

// Where all positions weigh the same.
template <class T>
__device__ void weigh_alike(int P, T* a, T* b) {
  for (int i = lane_index(); i < P; i += kWarp) a[i] = b[i] = T{1};
}

// Support images first, ..., first + shots - 1 of the class, whose positions are matched with the
// query's. kAtATime: rows whose embedded positions a warp compares at a time, so that more loads
// are under way, as far as there are registers.
template <class T, int kAtATime>
struct EpisodeMatch {
  const EpisodeArguments<T>& arguments;
  const EpisodeLayerArguments<T>& layer;
  const EpisodeClass& of;
  int first, shots;
  CosineBlock<T> cosines;

  __device__ int rows() const { return shots * layer.P; }

  // Where the embedded position of row r is, of all images'.
  __device__ std::int64_t support_position(int r) const {
    return arguments.lists.support_image(of.e, of.begin + first + r / layer.P) * layer.P +
           r % layer.P;
  }
  __device__ std::int64_t query_position(int j) const {
    return arguments.lists.query_image(of.e, of.q) * layer.P + j;
  }
};

// The cosines of embedded positions of rows first, ..., with their columns.
template <class T, int kAtATime>
__device__ void compare_embedded(const EpisodeMatch<T, kAtATime>& match, int first, int rows,
                                 const Matches<T>& matches) {
  const EpisodeLayerArguments<T>& layer = match.layer;
  std::int64_t support[kAtATime], query[kAtATime];
  T sums[kAtATime] = {};
#pragma unroll
  for (int n = 0; n < kAtATime; ++n) {
    const int r = first + n < rows ? first + n : first;
    support[n] = match.support_position(r);
    query[n] = match.query_position(matches.columns[r] < 0 ? 0 : matches.columns[r]);
  }
#pragma unroll 1
  for (std::int64_t d = lane_index(); d < layer.D; d += kWarp) {
#pragma unroll
    for (int n = 0; n < kAtATime; ++n) {
      sums[n] += layer.embedded[support[n] * layer.D + d] * layer.embedded[query[n] * layer.D + d];
    }
  }
#pragma unroll
  for (int n = 0; n < kAtATime; ++n) {
    const T product = warp_sum(sums[n]);
    if (lane_index() != 0 || first + n >= rows) continue;
    const T scale = inverse_norm(layer.embedded_squares[support[n]]) *
                    inverse_norm(layer.embedded_squares[query[n]]);
    matches.cosines[first + n] = matches.columns[first + n] < 0 ? T{0} : product * scale;
  }
}

// The cosine of every matched row, also for the backward pass.
template <class Group, class T, int kAtATime>
__device__ void gather_matches(const EpisodeMatch<T, kAtATime>& match, int rows,
                               const Matches<T>& matches) {
  const EpisodeLayerArguments<T>& layer = match.layer;
  if (layer.embedded != nullptr) {
#pragma unroll 1
    for (int r = 0; r < rows; r += kAtATime) compare_embedded(match, r, rows, matches);
  } else {
    for (int r = lane_index(); r < rows; r += kWarp) {
      const int j = matches.columns[r];
      matches.cosines[r] = j < 0 ? T{0} : match.cosines.at(r, j);
    }
  }
  if (layer.assignment == nullptr) return;
  __syncwarp();
  const std::int64_t to = match.of.row(match.arguments, layer.P, match.first);
  for (int r = lane_index(); r < rows; r += kWarp) {
    layer.assignment[to + r] = matches.columns[r];
    layer.cosines[to + r] = matches.cosines[r];
  }
}

// The share of a lane or thread, number `rank` of `size`, in the squared norm of the query's mean;
// mean [P] is in shared memory.
template <class T>
__device__ T query_square(const EpisodeArguments<T>& arguments,
                          const EpisodeLayerArguments<T>& layer, const EpisodeClass& of,
                          const T* mean, int rank, int size) {
  const int P = layer.P;
  const T* const gram = gram_of_query(arguments, layer, of);
  T sum{0};
  for (int n = rank; n < P * P; n += size) sum += mean[n / P] * gram[n] * mean[n % P];
  return sum;
}

// Writes the sums of a class over the layers, and base; by one thread.
template <class T>
__device__ void write_sums(const EpisodeArguments<T>& arguments, const EpisodeClass& of, T inner,
                           T square_s, T square_q) {
  T* const sums = arguments.sums + of.at * arguments.sums_of_query() + 3 * of.c;
  sums[0] = inner;
  sums[1] = square_s;
  sums[2] = square_q;
  arguments.base[of.at * arguments.lists.way + of.c] =
      inner * inverse_norm(square_s) * inverse_norm(square_q);
}

// Matched similarities of query `at` of all, layer by layer.
template <class T>
__device__ T* similarities_of(const EpisodeArguments<T>& arguments, std::int64_t at) {
  return arguments.sums + at * arguments.sums_of_query() + 3 * arguments.lists.way;
}

// The matched similarity of a problem over the layers, and the layer it comes from: the first of
// the largest, and a NaN counts as largest; -1 for the mean.
template <class T>
__device__ T over_layers(const EpisodeArguments<T>& arguments, const T* similarities,
                         std::int64_t problem, int& from) {
  T best = similarities[problem], sum = best;
  from = 0;
  for (int l = 1; l < arguments.layers; ++l) {
    const T other = similarities[l * arguments.problems() + problem];
    sum += other;
    if (other > best || (other != other && best == best)) {
      best = other;
      from = l;
    }
  }
  if (!arguments.choices.mean_over_layers) return best;
  from = -1;
  return sum / static_cast<T>(arguments.layers);
}

// By one warp.
template <class T>
__device__ void write_matching(const EpisodeArguments<T>& arguments, const EpisodeClass& of) {
  const T* const similarities = similarities_of(arguments, of.at);
  const EpisodeChoices& choices = arguments.choices;
  T sum{0};
  const int count = choices.merge_shots ? 1 : of.shots;
  for (int k = lane_index(); choices.matches() && k < count; k += kWarp) {
    int from;
    sum += over_layers(arguments, similarities, choices.merge_shots ? of.c : of.begin + k, from);
  }
  sum = warp_sum(sum);
  if (lane_index() != 0) return;
  arguments.matching[of.at * arguments.lists.way + of.c] =
      choices.matches() ? sum / static_cast<T>(count) : T{0};
}

}  // namespace lwfm
