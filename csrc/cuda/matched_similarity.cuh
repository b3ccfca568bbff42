// The mean of the `top_k` most similar of a pair's assigned positions, and its gradient: what
// core/matching/feature_matching.h computes once the assignment is known, with a group of threads
// for each pair.
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
__device__ int rank_of(const T* cosines, const int* columns, int rows, int i) {
  int rank = 0;
  for (int k = 0; k < rows; ++k) {
    if (columns[k] >= 0 && k != i) rank += comes_first(cosines[k], k, cosines[i], i) ? 1 : 0;
  }
  return rank;
}

template <class T>
__device__ int rank_of(const Matches<T>& matches, int rows, int i) {
  return rank_of(matches.cosines, matches.columns, rows, i);
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

// The similarity of a pair, written, from the columns of its rows, which are in shared memory and
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

// The memory of one pair in the backward kernel: that of Matches, of whose `largest` the shares of
// the gradient take the place, and the row of each column.
LWFM_HOST_DEVICE constexpr int matches_gradient_scratch(int rows, int columns, bool staged) {
  return matches_scratch(rows, columns, staged) + columns + columns % 2;
}

// What each row gets of the gradient, and the row of each column that got some.
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

}  // namespace lwfm
