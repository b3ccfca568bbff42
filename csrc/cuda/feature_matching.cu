// Launches of the kernels of feature matching; see feature_kernels.h.
#include "feature_kernels.h"
#include "feature_matching.cuh"
#include "pair_plan.h"

namespace lwfm {

namespace {

// A block for each position of a side.
template <class T, bool kOfSupport>
void launch_gradient(const FeatureMatchingGradientArguments<T>& arguments, cudaStream_t on) {
  const std::int64_t rows = kOfSupport ? arguments.S * arguments.support.positions
                                       : arguments.Q * arguments.query.positions;
  if (rows == 0) return;
  LWFM_LAUNCH((feature_gradient<T, kOfSupport>), static_cast<unsigned>(std::min(rows, kMaxGrid)),
              kSumThreads, 0, on, arguments);
}

}  // namespace

template <class T>
int find_inverse_norms(const T* x, std::int64_t rows, std::int64_t channels, T* inverse,
                       void* stream) {
  if (rows == 0) return cudaSuccess;
  constexpr std::int64_t kRows = kPairThreads / kWarp;
  const auto grid = static_cast<unsigned>(std::min((rows + kRows - 1) / kRows, kMaxGrid));
  LWFM_LAUNCH((invert_norms<T>), grid, kPairThreads, 0, static_cast<cudaStream_t>(stream), x, rows,
              channels, inverse);
  return cudaGetLastError();
}

template <class T>
int match_features(const FeatureMatchingArguments<T>& arguments, void* stream) {
  if (arguments.shape.batch.count == 0) return cudaSuccess;
  const PairPlan plan = plan_pairs(arguments.shape, sizeof(T), matching_scratch);
  LWFM_LAUNCH((match<T>), plan.grid, plan.threads, plan.shared_bytes,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int write_costs(const PairShape& shape, const PairScaledBlocks<T>& cosines, T* cost, void* stream) {
  if (shape.batch.count == 0) return cudaSuccess;
  const auto grid = static_cast<unsigned>(std::min(shape.batch.count, kMaxGrid));
  LWFM_LAUNCH((find_costs<T>), grid, kPairThreads, 0, static_cast<cudaStream_t>(stream), shape,
              cosines, cost);
  return cudaGetLastError();
}

template <class T>
int compare_features(const FeatureMatchingArguments<T>& arguments, void* stream) {
  if (arguments.shape.batch.count == 0) return cudaSuccess;
  const PairPlan plan = plan_pairs(arguments.shape, sizeof(T), matches_scratch);
  const auto on = static_cast<cudaStream_t>(stream);
  if (plan.of_warp) {
    LWFM_LAUNCH((compare<T, true>), plan.grid, plan.threads, plan.shared_bytes, on, arguments);
  } else {
    LWFM_LAUNCH((compare<T, false>), plan.grid, plan.threads, plan.shared_bytes, on, arguments);
  }
  return cudaGetLastError();
}

template <class T>
int match_features_backward(const FeatureMatchingGradientArguments<T>& arguments, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (arguments.shape.batch.count > 0) {
    const PairPlan plan = plan_pairs(arguments.shape, sizeof(T), matches_gradient_scratch);
    if (plan.of_warp) {
      LWFM_LAUNCH((distribute_similarity_gradient<T, true>), plan.grid, plan.threads,
                  plan.shared_bytes, on, arguments);
    } else {
      LWFM_LAUNCH((distribute_similarity_gradient<T, false>), plan.grid, plan.threads,
                  plan.shared_bytes, on, arguments);
    }
  }
  launch_gradient<T, true>(arguments, on);
  launch_gradient<T, false>(arguments, on);
  return cudaGetLastError();
}

template int find_inverse_norms(const float*, std::int64_t, std::int64_t, float*, void*);
template int find_inverse_norms(const double*, std::int64_t, std::int64_t, double*, void*);
template int match_features(const FeatureMatchingArguments<float>&, void*);
template int match_features(const FeatureMatchingArguments<double>&, void*);
template int write_costs(const PairShape&, const PairScaledBlocks<float>&, float*, void*);
template int write_costs(const PairShape&, const PairScaledBlocks<double>&, double*, void*);
template int compare_features(const FeatureMatchingArguments<float>&, void*);
template int compare_features(const FeatureMatchingArguments<double>&, void*);
template int match_features_backward(const FeatureMatchingGradientArguments<float>&, void*);
template int match_features_backward(const FeatureMatchingGradientArguments<double>&, void*);

}  // namespace lwfm
