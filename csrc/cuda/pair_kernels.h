// The CUDA kernels on pairs of images, for callers that know nothing of CUDA. Each function
// starts its kernels on a stream (a cudaStream_t) of the current device and returns at once, with a
// cudaError_t; nothing is allocated and nothing waits, so all of it can be captured in a CUDA
// graph.
//
// T is float or double.
#pragma once

#include "correlation_arguments.h"
#include "pair_arguments.h"

namespace lwfm {

// lwfm::embedding_weights and its backward. These throw std::invalid_argument for pairs of more
// positions than there is room for; see pair_plan.h.
template <class T>
int weigh_pairs(const EmbeddingWeightsArguments<T>& arguments, void* stream);

template <class T>
int weigh_pairs_backward(const EmbeddingWeightsGradientArguments<T>& arguments, void* stream);

// float16 and bfloat16 in memory; only kernels look into them.
struct Half;
struct BFloat16;

// lwfm::correlation, of images of 1 to kMaxAssignedPositions positions. In is T, Half or
// BFloat16.
template <class In, class T>
int correlate_pairs(const CorrelationArguments<In, T>& arguments, int multiprocessors,
                    void* stream);

// Of the current device; asking neither waits nor allocates.
int multiprocessors();

}  // namespace lwfm
