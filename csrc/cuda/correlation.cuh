// All (query, support) pairs of one layer in one kernel: inner products of their positions, layer-
// wise embedding, the assignment of positions and the matched similarity. A thread block owns a
// tile of whole images; the P x M blocks of its pairs never leave its shared memory. For
// inference: what the backward pass needs is not kept.
#pragma once

#include "core/matching/norms.h"
#include "embedding_weights.cuh"
#include "matched_similarity.cuh"
#include "pair_assignment.cuh"
#include "sums.cuh"
#include "tile_product.cuh"

namespace lwfm {

// Which images a tile holds.
struct TilePlace {
  std::int64_t first_support, first_query;
  int supports, queries;  // whole images that fit; the last tiles have fewer

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
  // Lines of a pair: the memory of a warp, large enough for its matches, too.
  static constexpr int kScratch = 4 * 2 * kMaxAssignedPositions;

  alignas(16) T scratch[kWarps][kScratch];
  T correlation_scale[2][Tile::kSize];
  T inverse_norm[2][Tile::kSize];
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
  auto* const lines = reinterpret_cast<SoftmaxLine<T>*>(pairs.scratch[Group::in_block()]);
  for_each_pair<Tile>(arguments, place, [&](const TilePair& pair) {
    const auto view = view_of(pair, memory, pairs.correlation_scale, P, M);
    find_lines<Group>(view, arguments.temperature, lines);
    __syncwarp();
    write_weights<Group>(view, lines, arguments.a + pair.index * P, arguments.b + pair.index * M);
    __syncwarp();  // before the next pair takes the memory
  });
}

// The features that the matched positions of a pair are compared by, where the caller has them.
template <class In>
struct ComparedFeatures {
  const In *support, *query;
  std::int64_t support_stride, query_stride;  // from position to position
  std::int64_t support_step, query_step;      // from channel to channel
  int channels;

  template <class T>
  __device__ ComparedFeatures(const CorrelationArguments<In, T>& arguments, std::int64_t s,
                              std::int64_t q)
      : support(arguments.support_compared.data + s * arguments.support_compared.image_stride),
        query(arguments.query_compared.data + q * arguments.query_compared.image_stride),
        support_stride(arguments.support_compared.position_stride),
        query_stride(arguments.query_compared.position_stride),
        support_step(arguments.support_compared.channel_stride),
        query_step(arguments.query_compared.channel_stride),
        channels(arguments.support_compared.channels) {}
};

// The cosine of a support position and a query position, on every lane. The norms cost no further
// reads.
template <class T, class In>
__device__ T warp_cosine(const ComparedFeatures<In>& features, int i, int j) {
  const In* const x = features.support + i * features.support_stride;
  const In* const y = features.query + j * features.query_stride;
  T product{0}, x_square{0}, y_square{0};
#pragma unroll 4
  for (int c = lane_index(); c < features.channels; c += kWarp) {
    const T own = number_of(x[c * features.support_step]),
            other = number_of(y[c * features.query_step]);
    product += own * other;
    x_square += own * own;
    y_square += other * other;
  }
  return warp_sum(product) * (inverse_norm(warp_sum(x_square)) * inverse_norm(warp_sum(y_square)));
}

// The cosines of the assigned rows by other features; a warp alone.
template <class Group, class T, class In>
__device__ void gather_matches(const ComparedFeatures<In>& features, int rows,
                               const Matches<T>& matches) {
  for (int i = 0; i < rows; ++i) {
    const int j = matches.columns[i];
    if (j < 0) continue;
    const T cosine = warp_cosine<T>(features, i, j);
    if (lane_index() == 0) matches.cosines[i] = cosine;
  }
}

// Assigns the positions of every pair of the tile, whose products become cosines, and compares
// them: by these cosines, or by other features, of which only the matched ones are read.
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
    for (int i = Group::rank(); i < P; i += Group::size()) {
      arguments.assignment[pair.index * P + i] = matches.columns[i];
    }
    T* const similarity = arguments.similarity + pair.index;
    if (arguments.support_compared.data == nullptr) {
      write_similarity<Group>(cosines, P, arguments.top_k, matches, similarity);
    } else {
      const ComparedFeatures<In> features(arguments, place.first_support + pair.support,
                                          place.first_query + pair.query);
      write_similarity<Group>(features, P, arguments.top_k, matches, similarity);
    }
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
}

}  // namespace lwfm
