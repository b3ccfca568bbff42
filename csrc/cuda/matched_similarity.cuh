// The mean of the `top_k` most similar of a pair's assigned positions, and its gradient: what
// core/pixel_matching.h computes once the assignment is known, with a group of threads for each
// pair.
#pragma once

#include <cmath>

#include "core/matching/match_order.h"
#include "pair_blocks.cuh"

namespace lwfm {

// The memory of one pair, in numbers of T: [P] cosines, [P] the largest of them in order, and the
// column of each row.
template <class T>
struct Matches {
  T* cosines;
  T* largest;
  int* columns;

  __device__ Matches(T* memory, int rows)
      : cosines(memory),
        largest(memory + rows),
        columns(reinterpret_cast<int*>(memory + 2 * rows)) {}
};

LWFM_HOST_DEVICE constexpr int matches_scratch(int rows, int, bool) { return 3 * rows + rows % 2; }

// The block of one pair where the caller has it: few of its entries are read.
template <class T>
struct ComparedPair {
  const T* raw;
  const T* row_scale;
  const T* column_scale;
  std::int64_t row_stride, column_stride, row_scale_stride, column_scale_stride;

  __device__ ComparedPair(const PairScaledBlocks<T>& blocks, const BatchSizes& batch,
                          std::int64_t pair)
      : raw(blocks.raw.data + offset_of(batch, blocks.raw.batch, pair)),
        row_scale(blocks.row_scale.data + offset_of(batch, blocks.row_scale.batch, pair)),
        column_scale(blocks.column_scale.data + offset_of(batch, blocks.column_scale.batch, pair)),
        row_stride(blocks.raw.row_stride),
        column_stride(blocks.raw.column_stride),
        row_scale_stride(blocks.row_scale.stride),
        column_scale_stride(blocks.column_scale.stride) {}

  __device__ T raw_at(int i, int j) const { return raw[i * row_stride + j * column_stride]; }
  __device__ T row_scale_at(int i) const { return row_scale[i * row_scale_stride]; }
  __device__ T column_scale_at(int j) const { return column_scale[j * column_scale_stride]; }
  __device__ T at(int i, int j) const {
    return raw_at(i, j) * row_scale_at(i) * column_scale_at(j);
  }
};

// The cosine of every assigned row; needs columns, and a barrier before anyone reads.
template <class Group, class T, class Pair>
__device__ void gather_matches(const Pair& compared, int rows, const Matches<T>& matches) {
  for (int i = Group::rank(); i < rows; i += Group::size()) {
    const int j = matches.columns[i];
    if (j >= 0) matches.cosines[i] = compared.at(i, j);
  }
}

// How many assigned rows are more similar than row i, which is assigned.
template <class T>
__device__ int rank_of(const Matches<T>& matches, int rows, int i) {
  int rank = 0;
  for (int k = 0; k < rows; ++k) {
    if (matches.columns[k] >= 0 && k != i) {
      rank += comes_first(matches.cosines[k], k, matches.cosines[i], i) ? 1 : 0;
    }
  }
  return rank;
}

// The similarity, in the thread of rank 0 after the last barrier; NaN if there is no assignment.
// Sums the largest first, as the core does.
template <class T>
__device__ T mean_of_largest(const Matches<T>& matches, int top_k) {
  T sum{0};
  for (int k = 0; k < top_k; ++k) sum += matches.largest[k];
  return sum / static_cast<T>(top_k);
}

// The columns of a pair's rows, in shared memory: all of them -1 where there is no assignment.
template <class Group>
__device__ void read_columns(const std::int64_t* assignment, int rows, int* columns) {
  for (int i = Group::rank(); i < rows; i += Group::size()) {
    columns[i] = static_cast<int>(assignment[i]);
  }
}

// Puts the `top_k` most similar in order; NaN in the places that no match takes.
template <class Group, class T>
__device__ void clear_largest(const Matches<T>& matches, int top_k) {
  for (int k = Group::rank(); k < top_k; k += Group::size()) {
    matches.largest[k] = static_cast<T>(NAN);
  }
}

template <class Group, class T>
__device__ void order_largest(const Matches<T>& matches, int rows, int top_k) {
  for (int i = Group::rank(); i < rows; i += Group::size()) {
    if (matches.columns[i] < 0) continue;
    const int rank = rank_of(matches, rows, i);
    if (rank < top_k) matches.largest[rank] = matches.cosines[i];
  }
}

// The similarity of a pair, written, from the columns of its rows, which stand in shared memory and
// are visible to the group. Ends with a barrier.
template <class Group, class T, class Pair>
__device__ void write_similarity(const Pair& compared, int rows, int top_k,
                                 const Matches<T>& matches, T* similarity) {
  clear_largest<Group>(matches, top_k);
  gather_matches<Group>(compared, rows, matches);
  LWFM_SYNC(Group);
  order_largest<Group>(matches, rows, top_k);
  LWFM_SYNC(Group);
  if (Group::rank() == 0) *similarity = mean_of_largest(matches, top_k);
  LWFM_SYNC(Group);  // before the next pair takes the memory
}

template <class T>
__device__ ComparedPair<T> compared_pair(const PixelMatchingArguments<T>& arguments,
                                         std::int64_t pair) {
  return {arguments.compared, arguments.shape.batch, pair};
}

// similarity of every pair from a given assignment. What is compared, `compared_pair` and
// `gather_matches` of the arguments know.
template <class T, bool kOfWarp, class Arguments = PixelMatchingArguments<T>>
__global__ void __launch_bounds__(kPairThreads, 1) compare(Arguments arguments) {
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

// The memory of one pair in the backward kernel: that of Matches, of whose `largest` the shares of
// the gradient take the place, and the row of each column.
LWFM_HOST_DEVICE constexpr int matches_gradient_scratch(int rows, int columns, bool staged) {
  return matches_scratch(rows, columns, staged) + columns + columns % 2;
}

// What each row gets of the gradient, and which row each column belongs to.
template <class Group, class T>
__device__ void share_gradient(const Matches<T>& matches, int rows, int top_k, T grad,
                               int* row_of_column) {
  for (int i = Group::rank(); i < rows; i += Group::size()) {
    const int j = matches.columns[i];
    const bool selected = j >= 0 && rank_of(matches, rows, i) < top_k;
    matches.largest[i] = selected ? grad / static_cast<T>(top_k) : T{0};
    if (selected) row_of_column[j] = i;
  }
}

template <class Group, class T>
__device__ void write_raw_gradient(const ComparedPair<T>& compared, const PairShape& shape,
                                   const T* shares, const int* row_of_column,
                                   const PairBlocks<T>& raw, std::int64_t offset) {
  const int M = shape.columns;
  for (std::int64_t e = Group::rank(); e < std::int64_t{shape.rows} * M; e += Group::size()) {
    const int i = static_cast<int>(e / M), j = static_cast<int>(e % M);
    T* const to = raw.data + offset + i * raw.row_stride + j * raw.column_stride;
    *to = row_of_column[j] == i ? shares[i] * compared.row_scale_at(i) * compared.column_scale_at(j)
                                : T{0};
  }
}

template <class Group, class T>
__device__ void write_scale_gradients(const ComparedPair<T>& compared, const PairShape& shape,
                                      const Matches<T>& matches, const int* row_of_column,
                                      T* row_scale, T* column_scale) {
  for (int i = Group::rank(); i < shape.rows; i += Group::size()) {
    const int j = matches.columns[i];
    const bool selected = j >= 0 && row_of_column[j] == i;
    row_scale[i] =
        selected ? matches.largest[i] * compared.raw_at(i, j) * compared.column_scale_at(j) : T{0};
  }
  for (int j = Group::rank(); j < shape.columns; j += Group::size()) {
    const int i = row_of_column[j];
    column_scale[j] =
        i >= 0 ? matches.largest[i] * compared.raw_at(i, j) * compared.row_scale_at(i) : T{0};
  }
}

template <class T, bool kOfWarp>
__global__ void __launch_bounds__(kPairThreads, 1)
    compare_backward(PixelMatchingGradientArguments<T> arguments) {
  using Group = PairGroup<kOfWarp>;
  LWFM_DYNAMIC_SHARED(T, memory);
  const PairShape& shape = arguments.shape;
  const int P = shape.rows, M = shape.columns;
  T* const scratch = memory + Group::in_block() * matches_gradient_scratch(P, M, true);
  const Matches<T> matches(scratch, P);
  int* const row_of_column = reinterpret_cast<int*>(scratch + matches_scratch(P, M, true));
  const PairGradients<T>& to = arguments.to;
  for (std::int64_t p = Group::first(); p < shape.batch.count; p += Group::step()) {
    const ComparedPair<T> compared(arguments.compared, shape.batch, p);
    read_columns<Group>(arguments.assignment + p * P, P, matches.columns);
    for (int j = Group::rank(); j < M; j += Group::size()) row_of_column[j] = -1;
    LWFM_SYNC(Group);
    gather_matches<Group>(compared, P, matches);
    LWFM_SYNC(Group);
    const T grad = arguments.grad.data[offset_of(shape.batch, arguments.grad.batch, p)];
    share_gradient<Group>(matches, P, arguments.top_k, grad, row_of_column);
    LWFM_SYNC(Group);
    write_raw_gradient<Group>(compared, shape, matches.largest, row_of_column, to.raw,
                              offset_of(shape.batch, to.raw.batch, p));
    write_scale_gradients<Group>(compared, shape, matches, row_of_column, to.row_scale + p * P,
                                 to.column_scale + p * M);
    LWFM_SYNC(Group);  // before the next pair takes the memory
  }
}

}  // namespace lwfm
