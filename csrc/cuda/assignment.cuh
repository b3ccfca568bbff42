// Kernels for batches of assignment problems: one warp each where neither side is longer than
// kWarpColumns, in registers up to kLaneColumns; one block each above.
//
// Every problem ends with a status word. One that could not be solved has -1 in all its rows, which
// a problem with positive sides that was solved never has.
#pragma once

#include <cstdint>

#include "assignment.h"
#include "team_assignment.cuh"
#include "warp_assignment.cuh"

namespace lwfm {

constexpr int kLaneColumns = 32, kWarpColumns = 128, kMostThreads = 512;

// Problem b of the batch with its shorter side as rows.
template <class T>
__device__ CostView<T> wide_problem(const AssignmentBatch<T>& batch, std::int64_t b) {
  const T* const data = batch.costs + b * batch.batch_stride;
  const double factor = batch.maximize ? -1.0 : 1.0;
  if (batch.rows <= batch.columns) return {data, batch.row_stride, batch.column_stride, factor};
  return {data, batch.column_stride, batch.row_stride, factor};
}

template <class T>
__device__ int shorter_side(const AssignmentBatch<T>& batch) {
  return static_cast<int>(batch.rows < batch.columns ? batch.rows : batch.columns);
}

template <class T>
__device__ int longer_side(const AssignmentBatch<T>& batch) {
  return static_cast<int>(batch.rows < batch.columns ? batch.columns : batch.rows);
}

// Copies a problem to shared memory, row by row, with neighboring lanes at neighboring columns.
template <class T>
__device__ void copy_problem(const CostView<T>& from, int rows, int columns, T* to) {
  const int lane = lane_index(), rows_on = kWarp / columns, columns_on = kWarp % columns;
  int i = lane / columns, j = lane % columns;
  while (i < rows) {
    to[i * columns + j] = from.data[i * from.row_stride + j * from.column_stride];
    i += rows_on;
    j += columns_on;
    if (j >= columns) {
      j -= columns;
      ++i;
    }
  }
}

// Problems of at most kLaneColumns columns; `Warps` of them in a block. Dynamic shared memory:
// Warps * rows * columns entries.
template <class T, int Warps>
__global__ void __launch_bounds__(Warps* kWarp) solve_in_lanes(AssignmentBatch<T> batch) {
  LWFM_DYNAMIC_SHARED(T, entries);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = lane_index();
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * Warps + warp;
  if (b >= batch.count) return;  // whole warps leave; no block barrier follows
  const int rows = shorter_side(batch), columns = longer_side(batch);
  const CostView<T> problem = wide_problem(batch, b);
  T* const own = entries + warp * rows * columns;
  copy_problem(problem, rows, columns, own);
  __syncwarp();
  const CostView<T> copy{own, columns, 1, problem.factor};
  const WarpAssignment answer = solve_in_warp(copy, rows, columns);
  const bool transposed = batch.rows > batch.columns, solved = answer.status == Status::ok;
  const int partner = transposed ? answer.row_of_column : answer.column_of_row;
  if (lane < batch.rows) batch.assignment[b * batch.rows + lane] = solved ? partner : -1;
  if (lane == 0) batch.statuses[b] = static_cast<std::int32_t>(answer.status);
}

template <class T, class Team>
__device__ void solve_with(const AssignmentBatch<T>& batch, std::int64_t b, void* memory,
                           const Team& team) {
  const int rows = shorter_side(batch), columns = longer_side(batch);
  const TeamState state(memory, rows, columns);
  TeamSolver<CostView<T>, Team> solver(wide_problem(batch, b), rows, columns, state, team);
  const Status status = solver.solve();
  const int* const partners =
      batch.rows > batch.columns ? state.row_of_column : state.column_of_row;
  for (std::int64_t i = Team::rank(); i < batch.rows; i += Team::size()) {
    batch.assignment[b * batch.rows + i] = status == Status::ok ? partners[i] : -1;
  }
  if (Team::rank() == 0) batch.statuses[b] = static_cast<std::int32_t>(status);
}

// Problems of at most kWarpColumns columns, several to a lane; `Warps` of them in a block. Dynamic
// shared memory: a TeamState for each. The second launch bound lets the compiler use 96 registers.
template <class T, int Warps>
__global__ void __launch_bounds__(Warps* kWarp, 5) solve_in_warps(AssignmentBatch<T> batch) {
  LWFM_DYNAMIC_SHARED(unsigned char, states);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * Warps + warp;
  if (b >= batch.count) return;  // whole warps leave; no block barrier follows
  const std::int64_t bytes = TeamState::bytes(shorter_side(batch), longer_side(batch));
  solve_with(batch, b, states + warp * bytes, WarpTeam{});
}

// Problems of any size, one to a block. Dynamic shared memory: a TeamState, unless there is a
// workspace, which then holds one for each problem.
template <class T>
__global__ void __launch_bounds__(kMostThreads, 1) solve_in_blocks(AssignmentBatch<T> batch) {
  LWFM_DYNAMIC_SHARED(unsigned char, shared_state);
  LWFM_SHARED(Candidate, scratch, BlockTeam::kScratch);
  const std::int64_t b = blockIdx.x;
  const std::int64_t bytes = TeamState::bytes(shorter_side(batch), longer_side(batch));
  unsigned char* const own = batch.workspace == nullptr
                                 ? shared_state
                                 : static_cast<unsigned char*>(batch.workspace) + b * bytes;
  solve_with(batch, b, own, BlockTeam(scratch));
}

}  // namespace lwfm
