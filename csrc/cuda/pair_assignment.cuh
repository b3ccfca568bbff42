// The assignment of one pair's positions by a warp, from cosines in shared memory.
#pragma once

#include "pair_blocks.cuh"
#include "warp_assignment.cuh"

namespace lwfm {

// A block of cosines in shared memory.
template <class T>
struct CosineBlock {
  T* values;
  int row_stride;

  __device__ T at(int i, int j) const { return values[i * row_stride + j]; }
};

// Turns raw products into cosines, in place; needs a barrier before anyone reads.
template <class Group, class T>
__device__ CosineBlock<T> multiply_out(const PairView<T, true>& pair, T* raw) {
  for (int e = Group::rank(); e < pair.rows * pair.columns; e += Group::size()) {
    const int i = e / pair.columns, j = e % pair.columns;
    raw[i * pair.row_stride + j] = pair.at(i, j);
  }
  return {raw, pair.row_stride};
}

// What the solver minimizes: 1 - cosine, rounded as the core rounds it, of the shorter side's
// positions as rows.
template <class T>
struct CosineCost {
  CosineBlock<T> cosines;
  bool transposed;
  double factor;

  __device__ double operator()(int i, int j) const {
    const T cost = T{1} - (transposed ? cosines.at(j, i) : cosines.at(i, j));
    return factor * static_cast<double>(cost);
  }
};

// Writes the column of each row to `columns` [rows] in shared memory, -1 for a row without one; all
// of them -1 if there is no assignment, because of a NaN. To be called by all lanes after a
// barrier; ends with one.
template <class T>
__device__ void assign_positions(const CosineBlock<T>& cosines, int rows, int columns,
                                 int* column_of_row) {
  const bool transposed = rows > columns;
  const WarpAssignment result =
      solve_in_warp(CosineCost<T>{cosines, transposed, 1.0}, transposed ? columns : rows,
                    transposed ? rows : columns);
  const int lane = lane_index();
  const int own = transposed ? result.row_of_column : result.column_of_row;
  if (lane < rows) column_of_row[lane] = result.status == Status::ok ? own : -1;
  __syncwarp();
}

}  // namespace lwfm
