// The CUDA kernels on pairs of images, for callers that know nothing of CUDA. Each function
// starts its kernels on a stream (a cudaStream_t) of the current device and returns at once, with a
// cudaError_t; nothing is allocated and nothing waits, so all of it can be captured in a CUDA
// graph.
//
// T is float or double.
#pragma once

#include "pair_arguments.h"

namespace lwfm {

// lwfm::embedding_weights and its backward. These throw std::invalid_argument for pairs of more
// positions than there is room for; see pair_plan.h.
template <class T>
int weigh_pairs(const EmbeddingWeightsArguments<T>& arguments, void* stream);

template <class T>
int weigh_pairs_backward(const EmbeddingWeightsGradientArguments<T>& arguments, void* stream);

// Of the current device; asking neither waits nor allocates.
int multiprocessors();

}  // namespace lwfm
