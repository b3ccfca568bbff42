// lwfm::episodes in one kernel that multiplies the positions itself, so that R never leaves shared
// memory: a thread block for some queries of an episode and one class, in it a warp for each pair
// of images. For inference, of images of few positions: see fused_plan.h.
#pragma once

#include "episode_pairs.cuh"
#include "fused_plan.h"
#include "tile_product.cuh"

namespace lwfm {

// What a thread block works on; in shared memory, to keep registers free.
struct QueryGroup {
  EpisodeClass first;  // of the first query
  int queries;

  QueryGroup() = default;
  template <class T>
  __device__ QueryGroup(const EpisodeArguments<T>& arguments, const FusedPlan& plan,
                        std::int64_t block)
      : first(arguments,
              (block / plan.groups / arguments.lists.way * arguments.lists.Q +
               block % plan.groups * plan.queries) *
                      arguments.lists.way +
                  block / plan.groups % arguments.lists.way,
              plan.most_shots) {
    const std::int64_t left = arguments.lists.Q - first.q;
    queries = static_cast<int>(left < plan.queries ? left : plan.queries);
  }

  __device__ EpisodeClass query(int n) const {
    EpisodeClass of = first;
    of.q += n;
    of.at += n;
    return of;
  }
};

// Queries whose class means are computed at a time, and channels that a thread adds up at a time.
constexpr int kMeanQueries = 8, kMeanChannels = 2;

// Shared memory of a block.
template <class Tile>
struct FusedMemory {
  using T = typename Tile::T;
  // Of a warp: the lines of a pair of images, or its matches.
  static constexpr int kScratch = 4 * 2 * kMaxAssignedPositions;

  TileMemory<Tile, Tile::kWarps * kScratch> tile;
  T correlation_scales[Tile::kPositions], inverse_norms[Tile::kPositions];
  T mean[Tile::kColumns];      // weights of the queries' positions, averaged over the class
  T terms[3][Tile::kColumns];  // of each query: inner, square_s and square_q over the layers

  __device__ T* scratch_of_warp() { return tile.scratch() + threadIdx.x / kWarp * kScratch; }
};

// In the place of the product, when it is no longer needed.
template <class Tile>
struct MeanMemory {
  Several<typename Tile::T, 4> weights[Tile::kRows][kMeanQueries / 4];
  typename Tile::T parts[Tile::kWarps][kMeanQueries];
  static_assert(kMeanQueries % 4 == 0);
};

// One layer, as a block sees it.
template <class Tile>
struct FusedLayer {
  using T = typename Tile::T;
  const EpisodeArguments<T>& arguments;
  const EpisodeLayerArguments<T>& layer;
  int number;
  const QueryGroup& group;
  FusedMemory<Tile>& memory;

  __device__ int shots() const { return group.first.shots; }
  __device__ int images_of_tile() const { return Tile::kRows / layer.P; }
  // Of those from k on, how many are in a tile.
  __device__ int images_from(int k) const {
    return shots() - k < images_of_tile() ? shots() - k : images_of_tile();
  }
  __device__ T* weights(T* of_layer, int query, int k) const {
    return of_layer + group.query(query).row(arguments, layer.P, k);
  }
  __device__ PositionChannels<T> channels() const { return {layer.positions, layer.C}; }
  __device__ int column_query() const {
    return static_cast<int>(threadIdx.x) % Tile::kColumns / layer.P;
  }
};

// Writes where the positions of a tile are, support images k, k + 1, ... and the queries, and their
// scales; needs a barrier before anyone reads.
template <class Tile>
__device__ void locate(const FusedLayer<Tile>& in, int k) {
  const EpisodeLists& lists = in.arguments.lists;
  const EpisodeClass& of = in.group.first;
  const int r = static_cast<int>(threadIdx.x), P = in.layer.P;
  if (r >= Tile::kPositions) return;
  const bool of_query = r >= Tile::kRows;
  const int n = of_query ? r - Tile::kRows : r;
  in.memory.tile.offsets[r] = -1;
  if (n >= (of_query ? in.group.queries : in.images_from(k)) * P) return;
  const std::int64_t image = of_query ? lists.query_image(of.e, of.q + n / P)
                                      : lists.support_image(of.e, of.begin + k + n / P);
  const std::int64_t position = image * P + n % P;
  in.memory.tile.offsets[r] = position * in.layer.C;
  in.memory.correlation_scales[r] = correlation_scale(in.layer.squares[position]);
  in.memory.inverse_norms[r] = inverse_norm(in.layer.squares[position]);
}

// A support image and a query of a tile.
struct TilePair {
  int image, query;
};

// Calls work(pair) with the pairs of this warp, in all of its lanes.
template <class Tile, class Work>
__device__ void for_each_pair(const FusedLayer<Tile>& in, int images, const Work& work) {
  const int queries = in.group.queries;
#pragma unroll 1
  for (int n = static_cast<int>(threadIdx.x) / kWarp; n < images * queries; n += Tile::kWarps) {
    work(TilePair{n / queries, n % queries});
  }
}

// The products of a pair, with one of the two kinds of scales.
template <class Tile>
__device__ PairView<typename Tile::T, true> view_of(const FusedLayer<Tile>& in,
                                                    const TilePair& pair,
                                                    const typename Tile::T* scales) {
  const int P = in.layer.P, top = pair.image * P, left = pair.query * P;
  return {in.memory.tile.numbers + top * Tile::kRow + left,
          Tile::kRow,
          1,
          scales + top,
          scales + Tile::kRows + left,
          P,
          P};
}

// Writes a and b of the pairs of a tile.
template <class Tile>
__device__ void weigh_tile(const FusedLayer<Tile>& in, int k) {
  for_each_pair(in, in.images_from(k), [&](const TilePair& pair) {
    auto* const a = in.weights(in.layer.a, pair.query, k + pair.image);
    auto* const b = in.weights(in.layer.b, pair.query, k + pair.image);
    if (in.arguments.choices.weighs) {
      weigh_pair(view_of(in, pair, in.memory.correlation_scales), in.arguments.choices.temperature,
                 in.memory.scratch_of_warp(), a, b);
    } else {
      weigh_alike(in.layer.P, a, b);
    }
  });
}

// Adds up the columns of a tile: returns the share of a thread, every few rows of its column, in
// a R, and adds b to `mean`.
template <class Tile>
__device__ typename Tile::T add_columns(const FusedLayer<Tile>& in, int k) {
  const int column = static_cast<int>(threadIdx.x) % Tile::kColumns,
            slice = static_cast<int>(threadIdx.x) / Tile::kColumns, P = in.layer.P,
            query = in.column_query(), images = in.images_from(k);
  typename Tile::T sum{0};
  if (query >= in.group.queries) return sum;
  const auto* const a = in.weights(in.layer.a, query, k);
#pragma unroll 1
  for (int r = slice; r < images * P; r += Tile::kSlices) {
    sum += a[r] * in.memory.tile.numbers[r * Tile::kRow + column];
  }
  if (slice > 0) return sum;
  const auto* const b = in.weights(in.layer.b, query, k);
#pragma unroll 1
  for (int n = 0; n < images; ++n) in.memory.mean[column] += b[n * P + column % P];
  return sum;
}

// Writes the matched similarities of the pairs of a tile, whose products become cosines.
template <class Tile>
__device__ void match_tile(const FusedLayer<Tile>& in, int k) {
  using T = typename Tile::T;
  using Group = PairGroup<true>;
  const int P = in.layer.P;
  const Matches<T> matches(in.memory.scratch_of_warp(), P);
  for_each_pair(in, in.images_from(k), [&](const TilePair& pair) {
    const auto cosines =
        multiply_out<Group>(view_of(in, pair, in.memory.inverse_norms),
                            in.memory.tile.numbers + pair.image * P * Tile::kRow + pair.query * P);
    __syncwarp();
    assign_positions(cosines, P, P, matches.columns);
    const EpisodeClass of = in.group.query(pair.query);
    const int image = k + pair.image;
    write_similarity<Group>(EpisodeMatch<T, 2>{in.arguments, in.layer, of, image, 1, cosines}, P,
                            in.arguments.choices.matched(P), matches,
                            similarities_of(in.arguments, of.at) +
                                in.number * in.arguments.problems() + of.begin + image);
  });
}

// Adds to inner and square_q of the queries, from each thread's share in the columns of all tiles.
template <class Tile>
__device__ void add_query_terms(const FusedLayer<Tile>& in, typename Tile::T along) {
  using T = typename Tile::T;
  const int P = in.layer.P, t = static_cast<int>(threadIdx.x), column = t % Tile::kColumns;
  T* const numbers = in.memory.tile.numbers;
  if (t < Tile::kColumns) in.memory.mean[t] /= static_cast<T>(in.shots());
  __syncthreads();
  numbers[t] = in.column_query() < in.group.queries ? along * in.memory.mean[column] : T{0};
  __syncthreads();
  const T share = T{1} / static_cast<T>(P), of_image = share / static_cast<T>(in.shots());
  for (int query = t / kWarp; query < in.group.queries; query += Tile::kWarps) {
    T inner{0};
#pragma unroll 1
    for (int n = lane_index(); n < Tile::kSlices * P; n += kWarp) {
      inner += numbers[n / P * Tile::kColumns + query * P + n % P];
    }
    inner = warp_sum(inner);
    const T square = warp_sum(query_square(in.arguments, in.layer, in.group.query(query),
                                           in.memory.mean + query * P, lane_index(), kWarp));
    if (lane_index() != 0) continue;
    in.memory.terms[0][query] += inner * share * of_image;
    in.memory.terms[2][query] += square * share * share;
  }
}

// Brings the weights a of support images k, k + 1, ... of a tile into shared memory, for queries
// first, first + 1, ... Begins and ends with a barrier.
template <class Tile>
__device__ void stage_weights(const FusedLayer<Tile>& in, int k, int first,
                              MeanMemory<Tile>& memory) {
  const int rows = in.images_from(k) * in.layer.P;
  __syncthreads();
  if (in.shots() > in.images_of_tile()) locate(in, k);  // else they are still located
#pragma unroll 1
  for (int n = static_cast<int>(threadIdx.x); n < Tile::kRows * kMeanQueries; n += Tile::kThreads) {
    const int r = n / kMeanQueries, q = n % kMeanQueries;
    const bool inside = r < rows && first + q < in.group.queries;
    memory.weights[r][q / 4].x[q % 4] =
        inside ? in.weights(in.layer.a, first + q, k)[r] : typename Tile::T{0};
  }
  __syncthreads();
}

// Sums of one thread: of channels `channel`, channel + kThreads, ... of the weighted means.
template <class Tile>
struct MeanSums {
  typename Tile::T of[kMeanChannels][kMeanQueries] = {};

  __device__ void add(const FusedLayer<Tile>& in, int rows, std::int64_t channel,
                      const MeanMemory<Tile>& memory) {
    using T = typename Tile::T;
#pragma unroll 4
    for (int r = 0; r < rows; ++r) {
      const T* const position = in.layer.positions + in.memory.tile.offsets[r];
#pragma unroll
      for (int n = 0; n < kMeanChannels; ++n) {
        const std::int64_t c = channel + n * Tile::kThreads;
        const T x = c < in.layer.C ? position[c] : T{0};
#pragma unroll
        for (int q = 0; q < kMeanQueries; ++q) of[n][q] += memory.weights[r][q / 4].x[q % 4] * x;
      }
    }
  }
};

// Adds to square_s of queries first, first + 1, ...: |sum of a s|^2, by all channels.
template <class Tile>
__device__ void add_support_squares(const FusedLayer<Tile>& in, int first) {
  using T = typename Tile::T;
  static_assert(sizeof(MeanMemory<Tile>) <= sizeof(in.memory.tile.numbers));
  auto& memory = *reinterpret_cast<MeanMemory<Tile>*>(in.memory.tile.numbers);
  T squares[kMeanQueries] = {};
  for (std::int64_t begin = 0; begin < in.layer.C; begin += kMeanChannels * Tile::kThreads) {
    MeanSums<Tile> sums;
    for (int k = 0; k < in.shots(); k += in.images_of_tile()) {
      stage_weights(in, k, first, memory);
      sums.add(in, in.images_from(k) * in.layer.P, begin + threadIdx.x, memory);
    }
#pragma unroll
    for (int q = 0; q < kMeanQueries; ++q) {
#pragma unroll
      for (int n = 0; n < kMeanChannels; ++n) squares[q] += sums.of[n][q] * sums.of[n][q];
    }
  }
#pragma unroll
  for (int q = 0; q < kMeanQueries; ++q) {
    const T part = warp_sum(squares[q]);
    if (lane_index() == 0) memory.parts[threadIdx.x / kWarp][q] = part;
  }
  __syncthreads();
  const int q = static_cast<int>(threadIdx.x);
  if (q >= kMeanQueries || first + q >= in.group.queries) return;
  T sum{0};
  for (int warp = 0; warp < Tile::kWarps; ++warp) sum += memory.parts[warp][q];
  const T of_image = T{1} / (static_cast<T>(in.layer.P) * static_cast<T>(in.shots()));
  in.memory.terms[1][first + q] += sum * of_image * of_image;
}

// Everything of one layer.
template <class Tile>
__device__ void compare_layer(const FusedLayer<Tile>& in) {
  typename Tile::T along{0};
  if (threadIdx.x < Tile::kColumns) in.memory.mean[threadIdx.x] = typename Tile::T{0};
  for (int k = 0; k < in.shots(); k += in.images_of_tile()) {
    locate(in, k);
    multiply_tile(in.channels(), in.memory.tile);
    weigh_tile(in, k);
    __syncthreads();
    along += add_columns(in, k);
    __syncthreads();
    if (in.arguments.choices.matches()) match_tile(in, k);
    __syncthreads();
  }
  add_query_terms(in, along);
  for (int first = 0; first < in.group.queries; first += kMeanQueries) {
    add_support_squares(in, first);
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    compare_in_tiles(EpisodeArguments<typename Tile::T> arguments, FusedPlan plan) {
  LWFM_SHARED(FusedMemory<Tile>, memories, 1);
  LWFM_SHARED(QueryGroup, groups, 1);
  LWFM_SHARED(EpisodeLayerArguments<typename Tile::T>, layers, 1);
  FusedMemory<Tile>& memory = memories[0];
  const QueryGroup& group = groups[0];
  const int t = static_cast<int>(threadIdx.x);
  for (std::int64_t block = blockIdx.x; block < plan.blocks; block += gridDim.x) {
    if (t == 0) groups[0] = QueryGroup(arguments, plan, block);
    for (int n = t; n < 3 * Tile::kColumns; n += Tile::kThreads) {
      memory.terms[n / Tile::kColumns][n % Tile::kColumns] = typename Tile::T{0};
    }
    for (int l = 0; l < arguments.layers; ++l) {
      if (t == 0) layers[0] = arguments.of[l];
      __syncthreads();
      compare_layer(FusedLayer<Tile>{arguments, layers[0], l, group, memory});
      __syncthreads();  // before the next layer takes the memory
    }
    for (int query = t / kWarp; query < group.queries; query += Tile::kWarps) {
      const EpisodeClass of = group.query(query);
      write_matching(arguments, of);
      if (lane_index() != 0) continue;
      write_sums(arguments, of, memory.terms[0][query], memory.terms[1][query],
                 memory.terms[2][query]);
    }
    __syncthreads();  // before the next group takes the memory
  }
}

}  // namespace lwfm
