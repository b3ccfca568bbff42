// Whole episodes: the base term and the matched similarity of every query with every class, from
// products of positions, as core/matching/episode_forward.h computes them. A thread block for each
// query and class of an episode, in it a warp for each support image and layer.
#pragma once

#include "episode_pairs.cuh"
#include "episode_plan.h"
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
  T* const a = layer.a + of.row(arguments, layer.P, k);
  T* const b = layer.b + of.row(arguments, layer.P, k);
  if (!arguments.choices.weighs) {
    weigh_alike(layer.P, a, b);
    return;
  }
  const auto pair = stage_image(
      arguments, layer, of, k, [](T square) { return correlation_scale(square); }, memory.scales,
      memory.block);
  __syncwarp();
  weigh_pair(pair, arguments.choices.temperature, memory.lines, a, b);
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
  write_similarity<Group>(EpisodeMatch<T, 4>{arguments, layer, of, first, shots, cosines}, rows,
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
  T inner{0}, square_s{0};
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
  const T square_q = query_square(arguments, layer, of, mean, static_cast<int>(threadIdx.x),
                                  static_cast<int>(blockDim.x));
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
  if (threadIdx.x == 0) write_sums(arguments, of, inner, square_s, square_q);
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
    T* const similarities = similarities_of(arguments, of.at);
    compare_images<kOfLanes>(arguments, of, memory, similarities);
    __syncthreads();
    if constexpr (!kOfLanes) {
      const bool merged = arguments.choices.merge_shots && arguments.choices.matches();
      if (merged) match_class(arguments, of, memory, similarities);
      __syncthreads();
    }
    if (threadIdx.x < kWarp) write_matching(arguments, of);
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
