// The CUDA kernels on features, for callers that know nothing of CUDA; as in pair_kernels.h, each
// function starts its kernels on a stream and returns at once, with a cudaError_t. T is float or
// double.
#pragma once

#include "feature_arguments.h"

namespace lwfm {

// inverse [rows] of x [rows, channels]; see core/matching/norms.h.
template <class T>
int find_inverse_norms(const T* x, std::int64_t rows, std::int64_t channels, T* inverse,
                       void* stream);

// lwfm::feature_matching of pairs of at most kMaxAssignedPositions positions on either side. The
// others take three steps: write_costs [count, P, M], an assignment solver, compare_features with
// its result. These and the backward throw std::invalid_argument for pairs of more positions than
// there is room for.
template <class T>
int match_features(const FeatureMatchingArguments<T>& arguments, void* stream);

template <class T>
int write_costs(const PairShape& shape, const PairScaledBlocks<T>& cosines, T* cost, void* stream);

template <class T>
int compare_features(const FeatureMatchingArguments<T>& arguments, void* stream);

template <class T>
int match_features_backward(const FeatureMatchingGradientArguments<T>& arguments, void* stream);

}  // namespace lwfm
