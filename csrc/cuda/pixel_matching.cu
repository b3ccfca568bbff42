// Launches of the kernels of semantic-pixel matching; see pair_kernels.h.
#include "pair_kernels.h"
#include "pair_plan.h"
#include "pixel_matching.cuh"

namespace lwfm {

template <class T>
int match_pairs(const PixelMatchingArguments<T>& arguments, void* stream) {
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
int compare_pairs(const PixelMatchingArguments<T>& arguments, void* stream) {
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
int compare_pairs_backward(const PixelMatchingGradientArguments<T>& arguments, void* stream) {
  if (arguments.shape.batch.count == 0) return cudaSuccess;
  const PairPlan plan = plan_pairs(arguments.shape, sizeof(T), matches_gradient_scratch);
  const auto on = static_cast<cudaStream_t>(stream);
  if (plan.of_warp) {
    LWFM_LAUNCH((compare_backward<T, true>), plan.grid, plan.threads, plan.shared_bytes, on,
                arguments);
  } else {
    LWFM_LAUNCH((compare_backward<T, false>), plan.grid, plan.threads, plan.shared_bytes, on,
                arguments);
  }
  return cudaGetLastError();
}

template int match_pairs(const PixelMatchingArguments<float>&, void*);
template int match_pairs(const PixelMatchingArguments<double>&, void*);
template int write_costs(const PairShape&, const PairScaledBlocks<float>&, float*, void*);
template int write_costs(const PairShape&, const PairScaledBlocks<double>&, double*, void*);
template int compare_pairs(const PixelMatchingArguments<float>&, void*);
template int compare_pairs(const PixelMatchingArguments<double>&, void*);
template int compare_pairs_backward(const PixelMatchingGradientArguments<float>&, void*);
template int compare_pairs_backward(const PixelMatchingGradientArguments<double>&, void*);

}  // namespace lwfm
