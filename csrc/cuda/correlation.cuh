// All (query, support) pairs of one layer in one kernel: inner products of their positions, layer-
// wise embedding, the assignment of positions and the matched similarity. A thread block owns a
// tile of whole pictures; the P x M blocks of its pairs never leave its shared memory. For
// inference: what the backward pass needs is not kept.
#pragma once

#include "core/norms.h"
#include "embedding_weights.cuh"
#include "matched_similarity.cuh"
#include "pair_assignment.cuh"
#include "tile_product.cuh"

namespace lwfm {

// Which pictures a tile holds.
struct TilePlace {
  std::int64_t first_support, first_query;
  int supports, queries;  // whole pictures that fit; the last tiles have fewer

  // Block `index` of the launch.
  template <class In, class T>
  LWFM_HOST_DEVICE TilePlace(const CorrelationArguments<In, T>& arguments, int size,
                             std::int64_t index)
      : supports(size / arguments.support.positions), queries(size / arguments.query.positions) {
    const std::int64_t across = (arguments.query.count + queries - 1) / queries;
    first_support = index / across * supports;
    first_query = index % across * queries;
  }
};

// What a block knows of the positions and pairs of its tile.
template <class Tile>
struct PairsMemory {
  using T = typename Tile::T;
  static constexpr int kWarps = Tile::kThreads / 32;
  // Lines of a pair and a: the memory of a warp, large enough for its matches, too.
  static constexpr int kScratch = (4 * 2 + 1) * kMaxAssignedPositions;

  alignas(16) T scratch[kWarps][kScratch];
  T correlation_scale[2][Tile::kSize];
  T inverse_norm[2][Tile::kSize];
  signed char columns[Tile::kSize * Tile::kSize];  // of each row of each pair; -1: none
};

template <class Tile>
__device__ void find_scales(const TileMemory<Tile>& memory, PairsMemory<Tile>& pairs) {
  for (int r = static_cast<int>(threadIdx.x); r < 2 * Tile::kSize; r += Tile::kThreads) {
    const int side = r / Tile::kSize, position = r % Tile::kSize;
    const typename Tile::T square = memory.squares[side][position];
    pairs.correlation_scale[side][position] = correlation_scale(square);
    pairs.inverse_norm[side][position] = inverse_norm(square);
  }
  __syncthreads();
}

// One pair of a tile, and where its results go.
struct TilePair {
  int support, query;  // in the tile
  std::int64_t index;  // q S + s
};

// Calls `work` with each pair of this warp, in all of its lanes.
template <class Tile, class In, class Work>
__device__ void for_each_pair(const CorrelationArguments<In, typename Tile::T>& arguments,
                              const TilePlace& place, const Work& work) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int k = warp; k < place.supports * place.queries; k += PairsMemory<Tile>::kWarps) {
    const int support = k / place.queries, query = k % place.queries;
    const std::int64_t s = place.first_support + support, q = place.first_query + query;
    if (s < arguments.support.count && q < arguments.query.count) {
      work(TilePair{support, query, q * arguments.support.count + s});
    }
  }
}

// The block of a pair, with one of the two kinds of scales.
template <class Tile>
__device__ PairView<typename Tile::T, true> view_of(
    const TilePair& pair, const TileMemory<Tile>& memory,
    const typename Tile::T (&scales)[2][Tile::kSize], int P, int M) {
  const int top = pair.support * P, left = pair.query * M;
  return {memory.numbers + top * Tile::kRow + left,
          Tile::kRow,
          1,
          scales[0] + top,
          scales[1] + left,
          P,
          M};
}

template <class Tile, class In>
__device__ void weigh_tile(const CorrelationArguments<In, typename Tile::T>& arguments,
                           const TilePlace& place, const TileMemory<Tile>& memory,
                           PairsMemory<Tile>& pairs) {
  using T = typename Tile::T;
  using Group = PairGroup<true>;
  const int P = arguments.support.positions, M = arguments.query.positions;
  T* const scratch = pairs.scratch[Group::in_block()];
  auto* const lines = reinterpret_cast<SoftmaxLine<T>*>(scratch);
  T* const a = scratch + 4 * (P + M);
  for_each_pair<Tile>(arguments, place, [&](const TilePair& pair) {
    const auto view = view_of(pair, memory, pairs.correlation_scale, P, M);
    find_lines<Group>(view, arguments.temperature, lines);
    __syncwarp();
    write_weights<Group>(view, lines, a, arguments.a + pair.index * P,
                         arguments.b + pair.index * M);
    __syncwarp();
    write_reached<Group>(view, a, arguments.reached + pair.index * M);
    __syncwarp();  // before the next pair takes the memory
  });
}

// Assigns the positions of every pair of the tile, whose products become cosines; compares them at
// once if they are compared by the same features.
template <class Tile, class In>
__device__ void match_tile(const CorrelationArguments<In, typename Tile::T>& arguments,
                           const TilePlace& place, TileMemory<Tile>& memory,
                           PairsMemory<Tile>& pairs) {
  using T = typename Tile::T;
  using Group = PairGroup<true>;
  const int P = arguments.support.positions, M = arguments.query.positions;
  const Matches<T> matches(pairs.scratch[Group::in_block()], P);
  for_each_pair<Tile>(arguments, place, [&](const TilePair& pair) {
    const auto cosines =
        multiply_out<Group>(view_of(pair, memory, pairs.inverse_norm, P, M),
                            memory.numbers + pair.support * P * Tile::kRow + pair.query * M);
    __syncwarp();
    assign_positions(cosines, P, M, matches.columns);
    signed char* const kept = pairs.columns + (pair.support * place.queries + pair.query) * P;
    for (int i = Group::rank(); i < P; i += Group::size()) {
      kept[i] = static_cast<signed char>(matches.columns[i]);
      arguments.assignment[pair.index * P + i] = matches.columns[i];
    }
    if (arguments.support_compared.data == nullptr) {
      write_similarity<Group>(cosines, P, arguments.top_k, matches,
                              arguments.similarity + pair.index);
    }
    __syncwarp();  // before the next pair takes the memory
  });
}

// Compares the assigned positions by the products that the tile holds now.
template <class Tile, class In>
__device__ void compare_tile(const CorrelationArguments<In, typename Tile::T>& arguments,
                             const TilePlace& place, const TileMemory<Tile>& memory,
                             PairsMemory<Tile>& pairs) {
  using T = typename Tile::T;
  using Group = PairGroup<true>;
  const int P = arguments.support.positions, M = arguments.query.positions;
  const Matches<T> matches(pairs.scratch[Group::in_block()], P);
  for_each_pair<Tile>(arguments, place, [&](const TilePair& pair) {
    const signed char* const kept = pairs.columns + (pair.support * place.queries + pair.query) * P;
    for (int i = Group::rank(); i < P; i += Group::size()) matches.columns[i] = kept[i];
    __syncwarp();
    write_similarity<Group>(view_of(pair, memory, pairs.inverse_norm, P, M), P, arguments.top_k,
                            matches, arguments.similarity + pair.index);
  });
}

template <class Tile, class In>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    correlate(CorrelationArguments<In, typename Tile::T> arguments) {
  LWFM_SHARED(TileMemory<Tile>, memories, 1);
  LWFM_SHARED(PairsMemory<Tile>, pairs_memories, 1);
  TileMemory<Tile>& memory = memories[0];
  PairsMemory<Tile>& pairs = pairs_memories[0];
  const TilePlace place(arguments, Tile::kSize, blockIdx.x);
  locate<Tile>(arguments.support, place.first_support, place.supports, memory.offsets[0]);
  locate<Tile>(arguments.query, place.first_query, place.queries, memory.offsets[1]);
  multiply_tile(arguments.support, arguments.query, memory);
  find_scales(memory, pairs);
  weigh_tile(arguments, place, memory, pairs);
  if (arguments.top_k == 0) return;
  match_tile(arguments, place, memory, pairs);
  if (arguments.support_compared.data == nullptr) return;
  locate<Tile>(arguments.support_compared, place.first_support, place.supports, memory.offsets[0]);
  locate<Tile>(arguments.query_compared, place.first_query, place.queries, memory.offsets[1]);
  multiply_tile(arguments.support_compared, arguments.query_compared, memory);
  find_scales(memory, pairs);
  compare_tile(arguments, place, memory, pairs);
}

}  // namespace lwfm
