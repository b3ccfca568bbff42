// Semantic-pixel matching of every pair: what core/matching/feature_matching.h computes. Pairs of
// few positions are assigned and compared by one warp, in shared memory; of others the costs are
// written for the assignment kernels, and `compare` does the rest.
#pragma once

#include "core/matching/norms.h"
#include "feature_arguments.h"
#include "matched_similarity.cuh"
#include "pair_assignment.cuh"
#include "sums.cuh"

namespace lwfm {

template <class T>
__global__ void __launch_bounds__(kPairThreads, 1)
    invert_norms(const T* x, std::int64_t rows, std::int64_t channels, T* inverse) {
  const std::int64_t warps = blockDim.x / kWarp;
  for (std::int64_t row = blockIdx.x * warps + threadIdx.x / kWarp; row < rows;
       row += gridDim.x * warps) {
    const T* const own = x + row * channels;
    const T square = warp_inner_product(own, own, channels);
    if (lane_index() == 0) inverse[row] = inverse_norm(square);
  }
}

// The features of both images of a pair.
template <class T>
struct FeaturePair {
  const T *support, *query;                  // [P, channels], [M, channels]
  const T *support_inverse, *query_inverse;  // [P], [M]
  std::int64_t channels;
  T* matched;  // [P], where the cosines go
};

template <class T>
__device__ FeaturePair<T> compared_pair(const FeatureMatchingArguments<T>& arguments,
                                        std::int64_t pair) {
  const FeatureSide<T>&support = arguments.support, &query = arguments.query;
  const std::int64_t s = arguments.images.support(pair) * support.positions,
                     q = arguments.images.query(pair) * query.positions;
  return {support.values + s * arguments.channels,
          query.values + q * arguments.channels,
          support.inverse_norms + s,
          query.inverse_norms + q,
          arguments.channels,
          arguments.matched + pair * support.positions};
}

// Compares the features of the assigned rows, a warp for each row.
template <class Group, class T>
__device__ void gather_matches(const FeaturePair<T>& pair, int rows, const Matches<T>& matches) {
  const int warps = Group::size() / kWarp, first = Group::kWarp ? 0 : Group::rank() / kWarp;
  for (int i = first; i < rows; i += warps) {
    const int j = matches.columns[i];
    T cosine{0};
    if (j >= 0) {
      cosine = warp_inner_product(pair.support + i * pair.channels, pair.query + j * pair.channels,
                                  pair.channels) *
               (pair.support_inverse[i] * pair.query_inverse[j]);
    }
    if (lane_index() != 0) continue;
    pair.matched[i] = cosine;
    if (j >= 0) matches.cosines[i] = cosine;
  }
}

LWFM_HOST_DEVICE constexpr int matching_scratch(int rows, int columns, bool staged) {
  return matches_scratch(rows, columns, staged) + pair_scratch(rows, columns, staged);
}

template <class T>
__global__ void __launch_bounds__(kPairThreads, 1) match(FeatureMatchingArguments<T> arguments) {
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
  const auto& [raw, row_scale, column_scale] = cosines;
  for (std::int64_t p = blockIdx.x; p < shape.batch.count; p += gridDim.x) {
    const T* const products = raw.data + offset_of(shape.batch, raw.batch, p);
    const T* const rows = row_scale.data + offset_of(shape.batch, row_scale.batch, p);
    const T* const columns = column_scale.data + offset_of(shape.batch, column_scale.batch, p);
    for (std::int64_t e = threadIdx.x; e < entries; e += blockDim.x) {
      const std::int64_t i = e / M, j = e % M;
      const T product = products[i * raw.row_stride + j * raw.column_stride];
      cost[p * entries + e] =
          T{1} - product * rows[i * row_scale.stride] * columns[j * column_scale.stride];
    }
  }
}

// The similarity of every pair from a given assignment.
template <class T, bool kOfWarp>
__global__ void __launch_bounds__(kPairThreads, 1) compare(FeatureMatchingArguments<T> arguments) {
  using Group = PairGroup<kOfWarp>;
  LWFM_DYNAMIC_SHARED(T, memory);
  const PairShape& shape = arguments.shape;
  const int P = shape.rows;
  const Matches<T> matches(memory + Group::in_block() * matches_scratch(P, shape.columns, true), P);
  for (std::int64_t p = Group::first(); p < shape.batch.count; p += Group::step()) {
    read_columns<Group>(arguments.assignment + p * P, P, matches.columns);
    LWFM_SYNC(Group);
    write_similarity<Group>(compared_pair(arguments, p), P, arguments.top_k, matches,
                            arguments.similarity + p);
  }
}

// Computes each match's share of the similarity gradient and the inverse assignment of every pair.
template <class T, bool kOfWarp>
__global__ void __launch_bounds__(kPairThreads, 1)
    distribute_similarity_gradient(FeatureMatchingGradientArguments<T> arguments) {
  using Group = PairGroup<kOfWarp>;
  LWFM_DYNAMIC_SHARED(T, memory);
  const PairShape& shape = arguments.shape;
  const int P = shape.rows, M = shape.columns;
  T* const scratch = memory + Group::in_block() * matches_gradient_scratch(P, M, true);
  const Matches<T> matches(scratch, P);
  int* const row_of_column = reinterpret_cast<int*>(scratch + matches_scratch(P, M, true));
  for (std::int64_t p = Group::first(); p < shape.batch.count; p += Group::step()) {
    read_columns<Group>(arguments.assignment + p * P, P, matches.columns);
    for (int i = Group::rank(); i < P; i += Group::size()) {
      matches.cosines[i] = arguments.matched[p * P + i];
    }
    for (int j = Group::rank(); j < M; j += Group::size()) row_of_column[j] = -1;
    LWFM_SYNC(Group);
    share_gradient<Group>(matches, P, arguments.top_k, arguments.grad[p], row_of_column);
    LWFM_SYNC(Group);
    for (int i = Group::rank(); i < P; i += Group::size()) {
      arguments.shares[p * P + i] = matches.largest[i];
    }
    for (int j = Group::rank(); j < M; j += Group::size()) {
      arguments.row_of_column[p * M + j] = row_of_column[j];
    }
    LWFM_SYNC(Group);  // before the next pair takes the memory
  }
}

// One position of an image in one of its pairs: which position of the other image it is matched
// with, and with what share of the gradient.
template <class T>
struct SharedMatch {
  std::int64_t other;  // the position among those of all images, or -1 for none
  T share;
  T cosine;
};

template <class T, bool kOfSupport>
__device__ SharedMatch<T> shared_match(const FeatureMatchingGradientArguments<T>& arguments,
                                       std::int64_t pair, int position) {
  const int P = arguments.shape.rows, M = arguments.shape.columns;
  const int row = kOfSupport ? position : arguments.row_of_column[pair * M + position];
  if (row < 0) return {-1, T{0}, T{0}};
  const std::int64_t entry = pair * P + row;
  const T share = arguments.shares[entry];
  if (share == T{0}) return {-1, T{0}, T{0}};
  const std::int64_t other = kOfSupport
                                 ? arguments.images.query(pair) * M + arguments.assignment[entry]
                                 : arguments.images.support(pair) * P + row;
  return {other, share, arguments.matched[entry]};
}

// The pairs of one image: first, how far apart, how many.
struct PairsOfImage {
  std::int64_t first, step, count;
};

template <class T, bool kOfSupport>
__device__ PairsOfImage pairs_of(const FeatureMatchingGradientArguments<T>& arguments,
                                 std::int64_t image) {
  if (arguments.images.paired) return {image, 1, 1};
  return kOfSupport ? PairsOfImage{image, arguments.S, arguments.Q}
                    : PairsOfImage{image * arguments.S, 1, arguments.S};
}

// The gradient of the features of one side, a block for each position: the features it is matched
// with, less what goes along its own because cosines know no length.
template <class T, bool kOfSupport>
__global__ void __launch_bounds__(kSumThreads, 1)
    feature_gradient(FeatureMatchingGradientArguments<T> arguments) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  LWFM_SHARED(T, parts, kSumThreads / kWarp);
  const RowList<T> list{offsets, weights};
  const FeatureSide<T>&own = kOfSupport ? arguments.support : arguments.query,
        &other = kOfSupport ? arguments.query : arguments.support;
  T* const grad = kOfSupport ? arguments.support_grad : arguments.query_grad;
  const std::int64_t C = arguments.channels,
                     rows = (kOfSupport ? arguments.S : arguments.Q) * own.positions;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const PairsOfImage pairs = pairs_of<T, kOfSupport>(arguments, row / own.positions);
    const int position = static_cast<int>(row % own.positions);
    const T inverse = own.inverse_norms[row];
    const auto match_in = [&](std::int64_t n) {
      return shared_match<T, kOfSupport>(arguments, pairs.first + n * pairs.step, position);
    };
    T along{0};
    // A norm below the smallest counts as that one, whatever it is.
    if (inverse < static_cast<T>(1.0 / kCosineEps)) {
      for (std::int64_t n = threadIdx.x; n < pairs.count; n += kSumThreads) {
        const SharedMatch<T> match = match_in(n);
        along += match.share * match.cosine * inverse * inverse;
      }
    }
    along = block_sum(along, parts);
    sum_rows(
        other.values, C, pairs.count,
        [&](std::int64_t n) -> WeightedRow<T> {
          const SharedMatch<T> match = match_in(n);
          if (match.other < 0) return {-1, T{0}};
          return {match.other * C, match.share * inverse * other.inverse_norms[match.other]};
        },
        list,
        [&](std::int64_t c, T sum) { grad[row * C + c] = sum - along * own.values[row * C + c]; });
  }
}

}  // namespace lwfm
