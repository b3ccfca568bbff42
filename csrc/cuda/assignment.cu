// The choice of kernel, grid and block for batches of assignment problems.
#include <algorithm>

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

// A grid has at most 2^31 - 1 blocks; longer batches take several launches. Calls launch(part,
// blocks).
template <class T, class Launch>
int launch_parts(const AssignmentBatch<T>& batch, int per_block, const Launch& launch) {
  const std::int64_t state =
      TeamState::bytes(std::min(batch.rows, batch.columns), std::max(batch.rows, batch.columns));
  for (std::int64_t begin = 0; begin < batch.count; begin += kMostBlocks * per_block) {
    AssignmentBatch<T> part = batch;
    part.count = std::min(batch.count - begin, kMostBlocks * per_block);
    part.costs += begin * batch.batch_stride;
    part.assignment += begin * batch.rows;
    part.statuses += begin;
    if (part.workspace != nullptr) {
      part.workspace = static_cast<char*>(part.workspace) + begin * state;
    }
    launch(part, static_cast<unsigned>((part.count + per_block - 1) / per_block));
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return static_cast<int>(error);
  }
  return static_cast<int>(cudaSuccess);
}

template <class T>
int solve(const AssignmentBatch<T>& batch, cudaStream_t stream) {
  const std::int64_t shorter = std::min(batch.rows, batch.columns);
  const std::int64_t longer = std::max(batch.rows, batch.columns);
  const std::int64_t state = TeamState::bytes(shorter, longer);
  if (longer <= kLaneColumns) {
    const std::size_t shared = kWarpsPerBlock * shorter * longer * sizeof(T);
    return launch_parts(batch, kWarpsPerBlock, [&](const auto& part, unsigned blocks) {
      LWFM_LAUNCH((solve_in_lanes<T, kWarpsPerBlock>), blocks, kWarpsPerBlock * kWarp, shared,
                  stream, part);
    });
  }
  if (longer <= kWarpColumns) {
    const std::size_t shared = static_cast<std::size_t>(kWarpsPerBlock * state);
    return launch_parts(batch, kWarpsPerBlock, [&](const auto& part, unsigned blocks) {
      LWFM_LAUNCH((solve_in_warps<T, kWarpsPerBlock>), blocks, kWarpsPerBlock * kWarp, shared,
                  stream, part);
    });
  }
  const std::size_t shared = state <= kSharedBytes ? static_cast<std::size_t>(state) : 0;
  return launch_parts(batch, 1, [&](const auto& part, unsigned blocks) {
    LWFM_LAUNCH(solve_in_blocks<T>, blocks, threads_for(longer), shared, stream, part);
  });
}

}  // namespace

std::int64_t assignment_workspace_bytes(std::int64_t count, std::int64_t rows,
                                        std::int64_t columns) {
  const std::int64_t state = TeamState::bytes(std::min(rows, columns), std::max(rows, columns));
  return state <= kSharedBytes ? 0 : count * state;
}

int solve_assignments(const AssignmentBatch<float>& batch, void* stream) {
  return solve(batch, static_cast<cudaStream_t>(stream));
}

int solve_assignments(const AssignmentBatch<double>& batch, void* stream) {
  return solve(batch, static_cast<cudaStream_t>(stream));
}

}  // namespace lwfm
