// Whole episodes: the base term and the matched similarity of every query with every class, from
// products of positions, as core/matching/episode_forward.h computes them. A thread block for each
// query and class of an episode, in it a warp for each support image and layer.
#pragma once

#include <cmath>

#include "embedding_weights.cuh"
#include "episode_class.cuh"
#include "episode_plan.h"
#include "matched_similarity.cuh"
#include "pair_assignment.cuh"
#include "team_assignment.cuh"

namespace lwfm {

// The memory of one assignment problem of `rows` support positions and `columns` query positions.
template <class T>
struct EpisodeMemory {
  unsigned char* state;  // of a TeamSolver
  T* lines;              // softmax lines, then matches
  T* scales;             // [rows + columns]
  T* block;              // [rows, pitch]

  __device__ EpisodeMemory(unsigned char* memory, std::int64_t rows, std::int64_t columns,
                           bool of_lanes)
      : state(memory),
        lines(reinterpret_cast<T*>(memory + state_bytes(rows, columns, of_lanes))),
        scales(lines + 4 * (rows + columns)),
        block(scales + rows + columns) {}

  static LWFM_HOST_DEVICE std::size_t state_bytes(std::int64_t rows, std::int64_t columns,
                                                  bool of_lanes) {
    if (of_lanes) return 0;
    const std::int64_t bytes =
        rows < columns ? TeamState::bytes(rows, columns) : TeamState::bytes(columns, rows);
    return static_cast<std::size_t>((bytes + 15) / 16 * 16);
  }

  static LWFM_HOST_DEVICE std::size_t bytes(std::int64_t rows, std::int64_t columns,
                                            bool of_lanes) {
    const std::int64_t numbers = 5 * (rows + columns) + rows * (columns | 1);
    return state_bytes(rows, columns, of_lanes) +
           (static_cast<std::size_t>(numbers) * sizeof(T) + 15) / 16 * 16;
  }
};

// Writes a and b of one support image.
template <class T>
__device__ void weigh_image(const EpisodeArguments<T>& arguments,
                            const EpisodeLayerArguments<T>& layer, const EpisodeClass& of, int k,
                            const EpisodeMemory<T>& memory) {
  using Group = PairGroup<true>;
  const int P = layer.P;
  T* const a = layer.a + of.row(arguments, P, k);
  T* const b = layer.b + of.row(arguments, P, k);
  if (!arguments.choices.weighs) {
    for (int i = lane_index(); i < P; i += kWarp) a[i] = b[i] = T{1};
    return;
  }
  const auto pair = stage_image(
      arguments, layer, of, k, [](T square) { return correlation_scale(square); }, memory.scales,
      memory.block);
  __syncwarp();
  auto* const lines = reinterpret_cast<SoftmaxLine<T>*>(memory.lines);
  find_lines<Group>(pair, static_cast<T>(arguments.choices.temperature), lines);
  __syncwarp();
  write_weights<Group>(pair, lines, a, b);
  __syncwarp();  // before the memory is used again
}

// Support images first, ..., first + shots - 1 of the class, whose positions are matched with the
// query's.
template <class T>
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

// Rows whose embedded positions a warp compares at a time, so that more loads are under way.
constexpr int kComparedRows = 4;

// The cosines of embedded positions of rows first, ..., with their columns.
template <class T>
__device__ void compare_embedded(const EpisodeMatch<T>& match, int first, int rows,
                                 const Matches<T>& matches) {
  const EpisodeLayerArguments<T>& layer = match.layer;
  std::int64_t support[kComparedRows], query[kComparedRows];
  T sums[kComparedRows] = {};
#pragma unroll
  for (int n = 0; n < kComparedRows; ++n) {
    const int r = first + n < rows ? first + n : first;
    support[n] = match.support_position(r);
    query[n] = match.query_position(matches.columns[r] < 0 ? 0 : matches.columns[r]);
  }
  for (std::int64_t d = lane_index(); d < layer.D; d += kWarp) {
#pragma unroll
    for (int n = 0; n < kComparedRows; ++n) {
      sums[n] += layer.embedded[support[n] * layer.D + d] * layer.embedded[query[n] * layer.D + d];
    }
  }
#pragma unroll
  for (int n = 0; n < kComparedRows; ++n) {
    const T product = warp_sum(sums[n]);
    if (lane_index() != 0 || first + n >= rows) continue;
    const T scale = inverse_norm(layer.embedded_squares[support[n]]) *
                    inverse_norm(layer.embedded_squares[query[n]]);
    matches.cosines[first + n] = matches.columns[first + n] < 0 ? T{0} : product * scale;
  }
}

// The cosine of every matched row, also for the backward pass.
template <class Group, class T>
__device__ void gather_matches(const EpisodeMatch<T>& match, int rows, const Matches<T>& matches) {
  const EpisodeLayerArguments<T>& layer = match.layer;
  if (layer.embedded != nullptr) {
    for (int r = 0; r < rows; r += kComparedRows) compare_embedded(match, r, rows, matches);
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

// As assign_positions, of any number of positions.
template <class T>
__device__ void assign_in_memory(const CosineBlock<T>& cosines, int rows, int columns,
                                 unsigned char* memory, int* column_of_row) {
  const bool transposed = rows > columns;
  const int shorter = transposed ? columns : rows, longer = transposed ? rows : columns;
  const TeamState state(memory, shorter, longer);
  TeamSolver<CosineCost<T>, WarpTeam> solver(CosineCost<T>{cosines, transposed, 1.0}, shorter,
                                             longer, state, WarpTeam{});
  const Status status = solver.solve();
  __syncwarp();
  const int* const partners = transposed ? state.row_of_column : state.column_of_row;
  for (int r = lane_index(); r < rows; r += kWarp) {
    column_of_row[r] = status == Status::ok ? partners[r] : -1;
  }
  __syncwarp();
}

// The matched similarity of some support images of the class, which a warp has to itself.
template <bool kOfLanes, class T>
__device__ void match_images(const EpisodeArguments<T>& arguments,
                             const EpisodeLayerArguments<T>& layer, const EpisodeClass& of,
                             int first, int shots, const EpisodeMemory<T>& memory, T* similarity) {
  using Group = PairGroup<true>;
  const int P = layer.P, rows = shots * P, pitch = pitch_of(P);
  for (int k = 0; k < shots; ++k) {
    const EpisodeBlock<T> from(arguments, layer, of, first + k);
    T* const block = memory.block + k * P * pitch;
    for (int n = lane_index(); n < P * P; n += kWarp) {
      block[n % P * pitch + n / P] = from.at(n % P, n / P);
    }
  }
  stage_scales(
      arguments, layer, of, first, shots, [](T square) { return inverse_norm(square); },
      memory.scales);
  __syncwarp();
  const auto cosines = multiply_out<Group>(
      PairView<T, true>{memory.block, pitch, 1, memory.scales, memory.scales + rows, rows, P},
      memory.block);
  __syncwarp();
  const Matches<T> matches(memory.lines, rows);
  if constexpr (kOfLanes) {
    assign_positions(cosines, rows, P, matches.columns);
  } else {
    assign_in_memory(cosines, rows, P, memory.state, matches.columns);
  }
  write_similarity<Group>(EpisodeMatch<T>{arguments, layer, of, first, shots, cosines}, rows,
                          arguments.choices.matched(P), matches, similarity);
}

// The share of a thread in inner, square_s and square_q of one layer; m [P] is in shared memory. A
// warp takes the block of one support image, or of two.
template <class T>
__device__ void add_terms(const EpisodeArguments<T>& arguments,
                          const EpisodeLayerArguments<T>& layer, const EpisodeClass& of,
                          const T* mean, T (&terms)[3]) {
  const int P = layer.P, warp = static_cast<int>(threadIdx.x) / kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  const T* const a = layer.a + of.row(arguments, P, 0);
  T inner{0}, square_s{0}, square_q{0};
  for (int k = warp; k < of.shots; k += warps) {
    const EpisodeBlock<T> block(arguments, layer, of, k);
    for (int n = lane_index(); n < P * P; n += kWarp) {
      const int j = n / P, i = n - j * P;
      inner += a[k * P + i] * block.at(i, j) * mean[j];
    }
  }
  for (int pair = warp; pair < of.shots * of.shots; pair += warps) {
    const int k = pair / of.shots, other = pair - k * of.shots;
    const ClassBlock<T> block(arguments, layer, of, k, other);
    for (int n = lane_index(); n < P * P; n += kWarp) {
      const int i = n / P, j = n - i * P;
      square_s += a[k * P + i] * block.at(i, j) * a[other * P + j];
    }
  }
  const T* const query_gram = gram_of_query(arguments, layer, of);
  for (int n = static_cast<int>(threadIdx.x); n < P * P; n += static_cast<int>(blockDim.x)) {
    square_q += mean[n / P] * query_gram[n] * mean[n % P];
  }
  const T share = T{1} / static_cast<T>(P), of_image = share / static_cast<T>(of.shots);
  terms[0] += inner * share * of_image;
  terms[1] += square_s * of_image * of_image;
  terms[2] += square_q * share * share;
}

// Writes the sums over the layers, and base.
template <class T>
__device__ void write_base(const EpisodeArguments<T>& arguments, const EpisodeClass& of, T* mean,
                           T* parts) {
  T terms[3] = {};
  for (int l = 0; l < arguments.layers; ++l) {
    average_query_weights(arguments, arguments.of[l], of, mean);
    __syncthreads();
    add_terms(arguments, arguments.of[l], of, mean, terms);
    __syncthreads();  // before the next layer takes the memory
  }
  const T inner = block_sum(terms[0], parts);
  const T square_s = block_sum(terms[1], parts);
  const T square_q = block_sum(terms[2], parts);
  if (threadIdx.x != 0) return;
  T* const sums = arguments.sums + of.at * arguments.sums_of_query() + 3 * of.c;
  sums[0] = inner;
  sums[1] = square_s;
  sums[2] = square_q;
  arguments.base[of.at * arguments.lists.way + of.c] =
      inner * inverse_norm(square_s) * inverse_norm(square_q);
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

// By the first warp.
template <class T>
__device__ void write_matching(const EpisodeArguments<T>& arguments, const EpisodeClass& of,
                               const T* similarities) {
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

// Everything that support images contribute one by one.
template <bool kOfLanes, class T>
__device__ void compare_images(const EpisodeArguments<T>& arguments, const EpisodeClass& of,
                               unsigned char* block_memory, T* similarities) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  const bool matches = arguments.choices.matches() && !arguments.choices.merge_shots;
  const int P = most_positions(arguments);
  unsigned char* const own = block_memory + warp * EpisodeMemory<T>::bytes(P, P, kOfLanes);
  for (int n = warp; n < arguments.layers * of.shots; n += warps) {
    const int l = n / of.shots, k = n % of.shots;
    const EpisodeLayerArguments<T>& layer = arguments.of[l];
    const EpisodeMemory<T> memory(own, layer.P, layer.P, kOfLanes);
    weigh_image(arguments, layer, of, k, memory);
    if (!matches) continue;
    match_images<kOfLanes>(arguments, layer, of, k, 1, memory,
                           similarities + l * arguments.problems() + of.begin + k);
  }
}

// How many layers are matched at a time where the images of a class are matched as one.
template <class T>
__device__ int layers_at_a_time(const EpisodeArguments<T>& arguments) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  return arguments.layers < warps ? arguments.layers : warps;
}

// All images of the class as one, a warp for each layer.
template <class T>
__device__ void match_class(const EpisodeArguments<T>& arguments, const EpisodeClass& of,
                            unsigned char* memory, T* similarities) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, count = layers_at_a_time(arguments);
  const std::int64_t P = most_positions(arguments);
  unsigned char* const own = memory + warp * EpisodeMemory<T>::bytes(of.shots * P, P, false);
  for (int l = warp; warp < count && l < arguments.layers; l += count) {
    const EpisodeLayerArguments<T>& layer = arguments.of[l];
    match_images<false>(arguments, layer, of, 0, of.shots,
                        EpisodeMemory<T>(own, of.shots * layer.P, layer.P, false),
                        similarities + l * arguments.problems() + of.c);
  }
}

// What the images of a class take.
template <bool kOfLanes, class T>
__device__ std::size_t bytes_of_class(const EpisodeArguments<T>& arguments,
                                      const EpisodeClass& of) {
  const std::int64_t P = most_positions(arguments);
  const std::size_t of_images = blockDim.x / kWarp * EpisodeMemory<T>::bytes(P, P, kOfLanes);
  if (!arguments.choices.merge_shots || !arguments.choices.matches()) return of_images;
  const std::size_t of_all =
      layers_at_a_time(arguments) * EpisodeMemory<T>::bytes(of.shots * P, P, false);
  return of_all > of_images ? of_all : of_images;
}

template <class T, bool kOfLanes, bool kShared>
__global__ void __launch_bounds__(kPairThreads, 1)
    compare_episodes(EpisodeArguments<T> arguments, EpisodePlan plan) {
  LWFM_DYNAMIC_SHARED(unsigned char, shared);
  LWFM_SHARED(T, parts, kPairThreads / kWarp);
  const EpisodeLists& lists = arguments.lists;
  for (std::int64_t block = blockIdx.x; block < lists.E * lists.Q * lists.way; block += gridDim.x) {
    const EpisodeClass of(arguments, block, plan.most_shots);
    unsigned char* memory = shared;
    if constexpr (!kShared) {
      if (bytes_of_class<kOfLanes>(arguments, of) > plan.shared_bytes) {
        memory =
            static_cast<unsigned char*>(arguments.workspace) + blockIdx.x * plan.workspace_bytes;
      }
    }
    T* const similarities = arguments.sums + of.at * arguments.sums_of_query() + 3 * lists.way;
    compare_images<kOfLanes>(arguments, of, memory, similarities);
    __syncthreads();
    if constexpr (!kOfLanes) {
      const bool merged = arguments.choices.merge_shots && arguments.choices.matches();
      if (merged) match_class(arguments, of, memory, similarities);
      __syncthreads();
    }
    if (threadIdx.x < kWarp) write_matching(arguments, of, similarities);
    write_base(arguments, of, reinterpret_cast<T*>(memory), parts);
  }
}

// features [E, Q, channels]: the weighted means of each query's positions, averaged over the
// classes; a block for each query and layer.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1)
    write_episode_features(EpisodeArguments<T> arguments, int most_shots) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  const RowList<T> list{offsets, weights};
  const EpisodeLists& lists = arguments.lists;
  const std::int64_t channels = arguments.channels();
  for (std::int64_t n = blockIdx.x; n < lists.E * lists.Q * arguments.layers; n += gridDim.x) {
    const std::int64_t at = n / arguments.layers;
    const int l = static_cast<int>(n % arguments.layers);
    std::int64_t channel = 0;
    for (int before = 0; before < l; ++before) channel += arguments.of[before].C;
    const EpisodeLayerArguments<T>& layer = arguments.of[l];
    const std::int64_t image = lists.query_image(at / lists.Q, at % lists.Q);
    sum_rows(
        layer.positions, layer.C, layer.P,
        [&](std::int64_t j) -> WeightedRow<T> {
          return {(image * layer.P + j) * layer.C,
                  query_weight(arguments, layer, at, static_cast<int>(j), most_shots)};
        },
        list,
        [&](std::int64_t c, T sum) { arguments.features[at * channels + channel + c] = sum; });
  }
}

}  // namespace lwfm
