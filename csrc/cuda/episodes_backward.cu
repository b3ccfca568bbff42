// Launches of the kernels of the gradients of episodes; see episode_kernels.h.
#include "episode_kernels.h"
#include "episodes_backward.cuh"

namespace lwfm {

namespace {

template <class T>
EpisodePlan plan_of(const EpisodeArguments<T>& arguments) {
  const int P = most_positions(arguments);
  return plan_blocks(arguments.lists, shots_of_class(arguments.lists), false,
                     {image_gradient_bytes<T>(P), class_gradient_bytes<T>(P), false});
}

}  // namespace

template <class T>
std::size_t episode_gradient_workspace(const EpisodeArguments<T>& arguments) {
  const EpisodePlan plan = plan_of(arguments);
  return plan.grid * plan.workspace_bytes;
}

template <class T>
int differentiate_episodes(const EpisodeGradientArguments<T>& arguments, void* stream) {
  const EpisodeLists& lists = arguments.of.lists;
  if (lists.E * lists.Q * lists.way == 0) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  const EpisodePlan plan = plan_of(arguments.of);
  if (plan.shared) {
    LWFM_LAUNCH((differentiate_episodes<T, true>), plan.grid, plan.threads, plan.shared_bytes, on,
                arguments, plan);
  } else {
    LWFM_LAUNCH((differentiate_episodes<T, false>), plan.grid, plan.threads, 0, on, arguments,
                plan);
  }
  return cudaGetLastError();
}

template <class T>
int finish_episode_gradients(const EpisodeGradientArguments<T>& arguments, void* stream) {
  const EpisodeLists& lists = arguments.of.lists;
  std::int64_t rows = 0;
  for (int l = 0; l < arguments.of.layers; ++l) {
    rows += lists.E * (lists.S + lists.Q) * arguments.of.of[l].P;
  }
  if (rows == 0) return cudaSuccess;
  LWFM_LAUNCH((finish_episode_gradients<T>), static_cast<unsigned>(std::min(rows, kMaxGrid)),
              kSumThreads, 0, static_cast<cudaStream_t>(stream), arguments, rows,
              most_shots(lists));
  return cudaGetLastError();
}

template std::size_t episode_gradient_workspace(const EpisodeArguments<float>&);
template std::size_t episode_gradient_workspace(const EpisodeArguments<double>&);
template int differentiate_episodes(const EpisodeGradientArguments<float>&, void*);
template int differentiate_episodes(const EpisodeGradientArguments<double>&, void*);
template int finish_episode_gradients(const EpisodeGradientArguments<float>&, void*);
template int finish_episode_gradients(const EpisodeGradientArguments<double>&, void*);

}  // namespace lwfm
