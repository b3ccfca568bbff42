// The episodes of float64 images in one kernel.
#include "fused_launch.cuh"

namespace lwfm {

template <>
int compare_fused_episodes(const EpisodeArguments<double>& arguments, bool, int, void* stream) {
  return launch_tiles<Tile<double, kFusedDoubles, kFusedDoubles, TileProducts::exact>>(arguments,
                                                                                       stream);
}

}  // namespace lwfm
