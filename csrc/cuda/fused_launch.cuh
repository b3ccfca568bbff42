// The launch of the kernel that multiplies positions itself; see episode_kernels.h. Each type has a
// source of its own, fused_episodes_<type>.cu: they take nvcc longest.
#pragma once

#include "episode_kernels.h"
#include "fused_episodes.cuh"

namespace lwfm {

template <class Tile>
int launch_tiles(const EpisodeArguments<typename Tile::T>& arguments, void* stream) {
  const FusedPlan plan = plan_fused(arguments.lists, most_positions(arguments), Tile::kColumns);
  if (plan.blocks > 0) {
    LWFM_LAUNCH((compare_in_tiles<Tile>), plan.grid, Tile::kThreads, 0,
                static_cast<cudaStream_t>(stream), arguments, plan);
  }
  return write_features(arguments, stream);
}

}  // namespace lwfm
