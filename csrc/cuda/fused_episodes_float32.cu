// The episodes of float32 images in one kernel.
#include "fused_launch.cuh"

namespace lwfm {

namespace {

template <TileProducts kHow>
int launch_floats(const EpisodeArguments<float>& arguments, int multiprocessors, void* stream) {
  const FusedPlan plan = plan_fused(arguments.lists, most_positions(arguments), kFusedColumns);
  if (plan.blocks >= multiprocessors) {
    return launch_tiles<Tile<float, kFusedRows, kFusedColumns, kHow>>(arguments, stream);
  }
  return launch_tiles<Tile<float, kFusedRows, kFusedColumnsOfFew, kHow>>(arguments, stream);
}

}  // namespace

template <>
int compare_fused_episodes(const EpisodeArguments<float>& arguments, bool tf32, int multiprocessors,
                           void* stream) {
  return tf32 ? launch_floats<TileProducts::tf32>(arguments, multiprocessors, stream)
              : launch_floats<TileProducts::exact>(arguments, multiprocessors, stream);
}

}  // namespace lwfm
