// The choice of kernel, grid and block for batches of assignment problems.
#include <algorithm>
#include <cmath>

#include "assignment.cuh"

namespace lwfm {

namespace {

constexpr int kWarpsPerBlock = 4;
// What every device offers a block without opting in, less the scratch of BlockTeam.
constexpr std::int64_t kSharedBytes = 48 * 1024 - BlockTeam::kScratch * sizeof(Candidate);
constexpr std::int64_t kMostBlocks = 0x7fffffff;

// Enough threads that each has a few columns: a scan of a row waits for memory, a barrier for the
// slowest warp.
int threads_for(std::int64_t columns) {
  const std::int64_t wanted = (columns / 4 + kWarp - 1) / kWarp * kWarp;
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 128, kMostThreads));
}

std::int64_t state_bytes(std::int64_t rows, std::int64_t columns, bool limited) {
  return TeamState::bytes(std::min(rows, columns), solver_columns(rows, columns, limited));
}

// A grid has at most 2^31 - 1 blocks; longer batches take several launches. Calls launch(part,
// blocks).
template <class T, class Launch>
int launch_parts(const AssignmentBatch<T>& batch, int per_block, std::int64_t state,
                 const Launch& launch) {
  for (std::int64_t begin = 0; begin < batch.count; begin += kMostBlocks * per_block) {
    AssignmentBatch<T> part = batch;
    part.count = std::min(batch.count - begin, kMostBlocks * per_block);
    part.costs += begin * batch.batch_stride;
    part.assignment += begin * batch.rows;
    part.statuses += begin;
    if (part.u != nullptr) {
      part.u += begin * batch.rows;
      part.v += begin * batch.columns;
    }
    if (part.workspace != nullptr) {
      part.workspace = static_cast<char*>(part.workspace) + begin * state;
    }
    launch(part, static_cast<unsigned>((part.count + per_block - 1) / per_block));
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return static_cast<int>(error);
  }
  return static_cast<int>(cudaSuccess);
}

template <bool Limited, class T>
int solve(const AssignmentBatch<T>& batch, cudaStream_t stream) {
  const std::int64_t columns = solver_columns(batch.rows, batch.columns, Limited);
  const std::int64_t state = state_bytes(batch.rows, batch.columns, Limited);
  if (columns <= kLaneColumns) {
    const std::size_t shared = kWarpsPerBlock * batch.rows * batch.columns * sizeof(T);
    return launch_parts(batch, kWarpsPerBlock, state, [&](const auto& part, unsigned blocks) {
      LWFM_LAUNCH((solve_in_lanes<Limited, T, kWarpsPerBlock>), blocks, kWarpsPerBlock * kWarp,
                  shared, stream, part);
    });
  }
  if (columns <= kWarpColumns) {
    const std::size_t shared = static_cast<std::size_t>(kWarpsPerBlock * state);
    return launch_parts(batch, kWarpsPerBlock, state, [&](const auto& part, unsigned blocks) {
      LWFM_LAUNCH((solve_in_warps<Limited, T, kWarpsPerBlock>), blocks, kWarpsPerBlock * kWarp,
                  shared, stream, part);
    });
  }
  const std::size_t shared = state <= kSharedBytes ? static_cast<std::size_t>(state) : 0;
  return launch_parts(batch, 1, state, [&](const auto& part, unsigned blocks) {
    LWFM_LAUNCH((solve_in_blocks<Limited, T>), blocks, threads_for(columns), shared, stream, part);
  });
}

template <class T>
int solve_on(const AssignmentBatch<T>& batch, void* stream) {
  const auto of_cuda = static_cast<cudaStream_t>(stream);
  return std::isfinite(batch.cost_limit) ? solve<true>(batch, of_cuda)
                                         : solve<false>(batch, of_cuda);
}

}  // namespace

std::int64_t assignment_workspace_bytes(std::int64_t count, std::int64_t rows, std::int64_t columns,
                                        bool limited) {
  const std::int64_t state = state_bytes(rows, columns, limited);
  return state <= kSharedBytes ? 0 : count * state;
}

int solve_assignments(const AssignmentBatch<float>& batch, void* stream) {
  return solve_on(batch, stream);
}

int solve_assignments(const AssignmentBatch<double>& batch, void* stream) {
  return solve_on(batch, stream);
}

}  // namespace lwfm
