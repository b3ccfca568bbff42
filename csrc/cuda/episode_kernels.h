// The CUDA kernels on episodes, for callers that know nothing of CUDA; as in pair_kernels.h, each
// function starts its kernels on a stream and returns at once, with a cudaError_t. T is float or
// double.
#pragma once

#include "episode_arguments.h"

namespace lwfm {

// lwfm::episodes after its products. Bytes of global memory that `workspace` must have:
template <class T>
std::size_t episode_workspace(const EpisodeArguments<T>& arguments);

template <class T>
int compare_episodes(const EpisodeArguments<T>& arguments, void* stream);

// The same in one kernel that also multiplies the positions, with `products` and `class_products`
// null; without a record, of shapes that can_fuse accepts. tf32: float32 is rounded to TF32 where
// tensor cores multiply.
template <class T>
int compare_fused_episodes(const EpisodeArguments<T>& arguments, bool tf32, int multiprocessors,
                           void* stream);

// The features of either, if there are any to be written; each calls it.
template <class T>
int write_features(const EpisodeArguments<T>& arguments, void* stream);

// Its backward: the gradients of products first, and what they were multiplied to by a matrix
// library afterwards.
template <class T>
std::size_t episode_gradient_workspace(const EpisodeArguments<T>& arguments);

template <class T>
int differentiate_episodes(const EpisodeGradientArguments<T>& arguments, void* stream);

template <class T>
int finish_episode_gradients(const EpisodeGradientArguments<T>& arguments, void* stream);

}  // namespace lwfm
