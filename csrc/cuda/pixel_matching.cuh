// Semantic-pixel matching on the block of every pair: what core/pixel_matching.h computes. Pairs of
// few positions are assigned and compared by one warp, in shared memory; of others the costs are
// written for the assignment kernels, and compare of matched_similarity.cuh does the rest.
#pragma once

#include "matched_similarity.cuh"
#include "pair_assignment.cuh"

namespace lwfm {

LWFM_HOST_DEVICE constexpr int matching_scratch(int rows, int columns, bool staged) {
  return matches_scratch(rows, columns, staged) + pair_scratch(rows, columns, staged);
}

template <class T, class Arguments = PixelMatchingArguments<T>>
__global__ void __launch_bounds__(kPairThreads, 1) match(Arguments arguments) {
  using Group = PairGroup<true>;
  LWFM_DYNAMIC_SHARED(T, memory);
  const PairShape& shape = arguments.shape;
  const int P = shape.rows, M = shape.columns;
  T* const scratch = memory + Group::in_block() * matching_scratch(P, M, true);
  const Matches<T> matches(scratch, P);
  T* const staged = scratch + matches_scratch(P, M, true);  // the scales, then the block
  for (std::int64_t p = Group::first(); p < shape.batch.count; p += Group::step()) {
    const auto pair = stage<Group, T, true>(arguments.cosines, shape, p, staged);
    __syncwarp();
    const auto cosines = multiply_out<Group>(pair, staged + P + M);
    __syncwarp();
    assign_positions(cosines, P, M, matches.columns);
    for (int i = Group::rank(); i < P; i += Group::size()) {
      arguments.assignment[p * P + i] = matches.columns[i];
    }
    write_similarity<Group>(compared_pair(arguments, p), P, arguments.top_k, matches,
                            arguments.similarity + p);
  }
}

// cost [count, P, M] = 1 - cosines, one thread block for each pair.
template <class T>
__global__ void __launch_bounds__(kPairThreads, 1)
    find_costs(PairShape shape, PairScaledBlocks<T> cosines, T* cost) {
  const std::int64_t M = shape.columns, entries = shape.rows * M;
  for (std::int64_t p = blockIdx.x; p < shape.batch.count; p += gridDim.x) {
    const ComparedPair<T> pair(cosines, shape.batch, p);
    for (std::int64_t e = threadIdx.x; e < entries; e += blockDim.x) {
      cost[p * entries + e] = T{1} - pair.at(static_cast<int>(e / M), static_cast<int>(e % M));
    }
  }
}

}  // namespace lwfm
