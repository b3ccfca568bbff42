// The threads that solve one problem together: a warp or a block. `min` also orders memory: what
// any thread wrote before it, every thread sees after it. Every thread of the team must call.
#pragma once

#include <cstdint>

#include "warp.cuh"

namespace lwfm {

class WarpTeam {
 public:
  static __device__ int rank() { return lane_index(); }
  static __device__ int size() { return kWarp; }
  static __device__ void sync() { __syncwarp(); }

  __device__ Candidate min(const Candidate& own) {
    sync();
    return warp_min(own);
  }
};

class BlockTeam {
 public:
  static constexpr int kMostWarps = 32;
  // Two sets, used in turn: a thread writes the next set while others may still read the last one.
  static constexpr int kScratch = 2 * kMostWarps;

  __device__ explicit BlockTeam(Candidate* scratch) : scratch_(scratch) {}

  static __device__ int rank() { return static_cast<int>(threadIdx.x); }
  static __device__ int size() { return static_cast<int>(blockDim.x); }
  static __device__ void sync() { __syncthreads(); }

  __device__ Candidate min(const Candidate& own) {
    Candidate* const set = scratch_ + turn_ * kMostWarps;
    turn_ ^= 1;
    const Candidate of_warp = warp_min(own);
    if (lane_index() == 0) set[rank() / kWarp] = of_warp;
    __syncthreads();
    const int warps = size() / kWarp;
    return warp_min(set[lane_index() < warps ? lane_index() : 0]);
  }

 private:
  Candidate* scratch_;
  int turn_ = 0;
};

}  // namespace lwfm
