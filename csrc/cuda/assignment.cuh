// Kernels for batches of assignment problems: one warp each where they need at most kWarpColumns
// columns, in registers up to kLaneColumns; one block each above. A problem needs the columns of
// its longer side and, with a cost limit, one more for each row of the shorter one.
//
// Every problem ends with a status word. One that could not be solved has -1 in all its rows, which
// a solved one with positive sides and no cost limit never has, and duals of NaN.
#pragma once

#include <cstdint>
#include <type_traits>

#include "assignment.h"
#include "team_assignment.cuh"
#include "warp_assignment.cuh"

namespace lwfm {

constexpr int kLaneColumns = 32, kWarpColumns = 128, kMostThreads = 512;

// Problem b of the batch with its shorter side as rows; pairs of a limited problem at half scale.
template <class T>
__device__ CostView<T> wide_problem(const AssignmentBatch<T>& batch, std::int64_t b, double scale) {
  const T* const data = batch.costs + b * batch.batch_stride;
  const double factor = batch.maximize ? -scale : scale;
  if (batch.rows <= batch.columns) return {data, batch.row_stride, batch.column_stride, factor};
  return {data, batch.column_stride, batch.row_stride, factor};
}

// The problem that a kernel solves, from the pairs in the caller's memory or a copy of them.
template <bool Limited, class T>
__device__ auto solver_problem(const AssignmentBatch<T>& batch, const CostView<T>& pairs,
                               int paired_columns) {
  if constexpr (Limited) {
    return LimitedView<T>{pairs, paired_columns, pairs.factor * batch.cost_limit, 1.0};
  } else {
    return pairs;
  }
}

template <bool Limited>
constexpr double kPairScale = Limited ? 0.5 : 1.0;

template <class T>
__device__ int shorter_side(const AssignmentBatch<T>& batch) {
  return static_cast<int>(batch.rows < batch.columns ? batch.rows : batch.columns);
}

template <class T>
__device__ int longer_side(const AssignmentBatch<T>& batch) {
  return static_cast<int>(batch.rows < batch.columns ? batch.columns : batch.rows);
}

// Where the duals of problem b go, and how the solver's become the caller's: see write_duals() in
// core/assignment.h.
template <bool Limited, class T>
class DualWriter {
 public:
  __device__ DualWriter(const AssignmentBatch<T>& batch, std::int64_t b, double factor)
      : unit_((batch.maximize && Limited ? -1.0 : 1.0) / (kPairScale<Limited> * factor)),
        share_(Limited ? 0.5 * batch.cost_limit : 0.0) {
    double* const u = batch.u + b * batch.rows;
    double* const v = batch.v + b * batch.columns;
    shorter_ = batch.rows <= batch.columns ? u : v;
    longer_ = batch.rows <= batch.columns ? v : u;
  }

  __device__ void write_row(int i, double dual) const {
    shorter_[i] = (Limited && dual > 0.0 ? 0.0 : dual) * unit_ + share_;
  }
  __device__ void write_column(int j, double dual) const { longer_[j] = dual * unit_ + share_; }

 private:
  double *shorter_, *longer_;
  double unit_, share_;
};

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

// Writes what a warp has found for problem b.
template <bool Limited, class Cost, class T>
__device__ void write_lanes(const AssignmentBatch<T>& batch, std::int64_t b, const Cost& cost,
                            const WarpAssignment& answer) {
  const int rows = shorter_side(batch), paired = longer_side(batch), lane = lane_index();
  const bool solved = answer.status == Status::ok;
  const int partner = batch.rows > batch.columns ? answer.row_of_column : answer.column_of_row;
  const bool made = solved && (!Limited || partner < paired);
  if (lane < batch.rows) batch.assignment[b * batch.rows + lane] = made ? partner : -1;
  if (lane == 0) batch.statuses[b] = static_cast<std::int32_t>(answer.status);
  if (batch.u == nullptr) return;
  const DualWriter<Limited, T> writer(batch, b, answer.factor);
  const int column = solved && lane < rows ? answer.column_of_row : 0;
  const double v = __shfl_sync(kAllLanes, answer.v, column);
  const double nan = kInfinity - kInfinity;
  if (lane < rows) writer.write_row(lane, solved ? cost(lane, column) - v : nan);
  if (lane < paired) writer.write_column(lane, solved ? answer.v : nan);
}

// Problems that need at most kLaneColumns columns; `Warps` of them in a block. Dynamic shared
// memory: an entry for each pair of Warps problems.
template <bool Limited, class T, int Warps>
__global__ void __launch_bounds__(Warps* kWarp) solve_in_lanes(AssignmentBatch<T> batch) {
  LWFM_DYNAMIC_SHARED(T, entries);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * Warps + warp;
  if (b >= batch.count) return;  // whole warps leave; no block barrier follows
  const int rows = shorter_side(batch), paired = longer_side(batch);
  const CostView<T> pairs = wide_problem(batch, b, kPairScale<Limited>);
  T* const own = entries + warp * rows * paired;
  copy_problem(pairs, rows, paired, own);
  __syncwarp();
  auto copy = solver_problem<Limited>(batch, CostView<T>{own, paired, 1, pairs.factor}, paired);
  const WarpAssignment answer = solve_in_warp(copy, rows, Limited ? paired + rows : paired);
  copy.factor = answer.factor;
  write_lanes<Limited>(batch, b, copy, answer);
}

// Writes what a team has found for problem b. Unrolled loops would need more registers than the
// solver.
template <bool Limited, class Cost, class Team, class T>
__device__ void write_state(const AssignmentBatch<T>& batch, std::int64_t b, const Cost& cost,
                            const TeamState& state, Status status) {
  const int rows = shorter_side(batch), paired = longer_side(batch);
  const bool solved = status == Status::ok;
  const int* const partners =
      batch.rows > batch.columns ? state.row_of_column : state.column_of_row;
#pragma unroll 1
  for (std::int64_t i = Team::rank(); i < batch.rows; i += Team::size()) {
    const bool made = solved && (!Limited || partners[i] < paired);
    batch.assignment[b * batch.rows + i] = made ? partners[i] : -1;
  }
  if (Team::rank() == 0) batch.statuses[b] = static_cast<std::int32_t>(status);
  if (batch.u == nullptr) return;
  const DualWriter<Limited, T> writer(batch, b, cost.factor);
  const double nan = kInfinity - kInfinity;
#pragma unroll 1
  for (int i = Team::rank(); i < rows; i += Team::size()) {
    const int column = solved ? state.column_of_row[i] : 0;
    writer.write_row(i, solved ? cost(i, column) - state.v[column] : nan);
  }
#pragma unroll 1
  for (int j = Team::rank(); j < paired; j += Team::size()) {
    writer.write_column(j, solved ? state.v[j] : nan);
  }
}

template <bool Limited, class T, class Team>
__device__ void solve_with(const AssignmentBatch<T>& batch, std::int64_t b, void* memory,
                           const Team& team) {
  const int rows = shorter_side(batch), paired = longer_side(batch);
  const int columns = Limited ? paired + rows : paired;
  const TeamState state(memory, rows, columns);
  const auto cost =
      solver_problem<Limited>(batch, wide_problem(batch, b, kPairScale<Limited>), paired);
  TeamSolver<std::remove_const_t<decltype(cost)>, Team> solver(cost, rows, columns, state, team);
  const Status status = solver.solve();
  write_state<Limited, std::remove_const_t<decltype(cost)>, Team>(batch, b, solver.cost(), state,
                                                                  status);
}

// The bytes of a TeamState of one problem.
template <bool Limited, class T>
__device__ std::int64_t state_bytes(const AssignmentBatch<T>& batch) {
  const int rows = shorter_side(batch), paired = longer_side(batch);
  return TeamState::bytes(rows, Limited ? paired + rows : paired);
}

// Problems that need at most kWarpColumns columns, several to a lane; `Warps` of them in a block.
// Dynamic shared memory: a TeamState for each. The second launch bound lets the compiler use 96
// registers.
template <bool Limited, class T, int Warps>
__global__ void __launch_bounds__(Warps* kWarp, 5) solve_in_warps(AssignmentBatch<T> batch) {
  LWFM_DYNAMIC_SHARED(unsigned char, states);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * Warps + warp;
  if (b >= batch.count) return;  // whole warps leave; no block barrier follows
  solve_with<Limited>(batch, b, states + warp * state_bytes<Limited>(batch), WarpTeam{});
}

// Problems of any size, one to a block. Dynamic shared memory: a TeamState, unless there is a
// workspace, which then holds one for each problem.
template <bool Limited, class T>
__global__ void __launch_bounds__(kMostThreads, 1) solve_in_blocks(AssignmentBatch<T> batch) {
  LWFM_DYNAMIC_SHARED(unsigned char, shared_state);
  LWFM_SHARED(Candidate, scratch, BlockTeam::kScratch);
  const std::int64_t b = blockIdx.x;
  const std::int64_t bytes = state_bytes<Limited>(batch);
  unsigned char* const own = batch.workspace == nullptr
                                 ? shared_state
                                 : static_cast<unsigned char*>(batch.workspace) + b * bytes;
  solve_with<Limited>(batch, b, own, BlockTeam(scratch));
}

}  // namespace lwfm
