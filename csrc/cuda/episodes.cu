// Launches of the kernels on episodes; see episode_kernels.h.
#include "episode_kernels.h"
#include "episode_plan.h"
#include "episodes.cuh"

namespace lwfm {

namespace {

template <class T>
EpisodePlan plan_of(const EpisodeArguments<T>& arguments) {
  const EpisodeLists& lists = arguments.lists;
  const int P = most_positions(arguments);
  const bool merged = arguments.choices.merge_shots && arguments.choices.matches();
  const bool of_lanes = !merged && P <= kMaxAssignedPositions;
  std::size_t of_block = 2 * sizeof(T) * static_cast<std::size_t>(P);
  if (merged) {  // a warp for each layer; there may be fewer
    const std::size_t of_class =
        EpisodeMemory<T>::bytes(std::int64_t{most_shots(lists)} * P, P, false);
    of_block = std::max(of_block, static_cast<std::size_t>(arguments.layers) * of_class);
  }
  return plan_blocks(lists, arguments.layers * shots_of_class(lists), of_lanes,
                     {EpisodeMemory<T>::bytes(P, P, of_lanes), of_block, true});
}

template <class T, bool kOfLanes, bool kShared>
void launch(const EpisodeArguments<T>& arguments, const EpisodePlan& plan, cudaStream_t on) {
  LWFM_LAUNCH((compare_episodes<T, kOfLanes, kShared>), plan.grid, plan.threads, plan.shared_bytes,
              on, arguments, plan);
}

}  // namespace

template <class T>
std::size_t episode_workspace(const EpisodeArguments<T>& arguments) {
  const EpisodePlan plan = plan_of(arguments);
  return plan.grid * plan.workspace_bytes;
}

template <class T>
int compare_episodes(const EpisodeArguments<T>& arguments, void* stream) {
  const EpisodeLists& lists = arguments.lists;
  if (lists.E * lists.Q * lists.way == 0) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  const EpisodePlan plan = plan_of(arguments);
  if (plan.of_lanes) {
    launch<T, true, true>(arguments, plan, on);
  } else if (plan.shared) {
    launch<T, false, true>(arguments, plan, on);
  } else {
    launch<T, false, false>(arguments, plan, on);
  }
  return write_features(arguments, stream);
}

template <class T>
int write_features(const EpisodeArguments<T>& arguments, void* stream) {
  const EpisodeLists& lists = arguments.lists;
  const std::int64_t blocks = lists.E * lists.Q * arguments.layers;
  if (arguments.features != nullptr && blocks > 0) {
    LWFM_LAUNCH((write_episode_features<T>), static_cast<unsigned>(std::min(blocks, kMaxGrid)),
                kSumThreads, 0, static_cast<cudaStream_t>(stream), arguments, most_shots(lists));
  }
  return cudaGetLastError();
}

template std::size_t episode_workspace(const EpisodeArguments<float>&);
template std::size_t episode_workspace(const EpisodeArguments<double>&);
template int compare_episodes(const EpisodeArguments<float>&, void*);
template int compare_episodes(const EpisodeArguments<double>&, void*);
template int write_features(const EpisodeArguments<float>&, void*);
template int write_features(const EpisodeArguments<double>&, void*);

}  // namespace lwfm
