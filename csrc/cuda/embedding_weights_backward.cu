// The launch of the backward kernels of layer-wise embedding; see pair_kernels.h.
#include "embedding_weights.cuh"
#include "pair_kernels.h"
#include "pair_plan.h"

namespace lwfm {

template <class T>
int weigh_pairs_backward(const EmbeddingWeightsGradientArguments<T>& arguments, void* stream) {
  if (arguments.shape.batch.count == 0) return cudaSuccess;
  const PairPlan plan = plan_pairs(arguments.shape, sizeof(T), weights_gradient_scratch);
  const auto on = static_cast<cudaStream_t>(stream);
  if (plan.of_warp) {
    LWFM_LAUNCH((weigh_backward<T, true, true>), plan.grid, plan.threads, plan.shared_bytes, on,
                arguments);
  } else if (plan.staged) {
    LWFM_LAUNCH((weigh_backward<T, false, true>), plan.grid, plan.threads, plan.shared_bytes, on,
                arguments);
  } else {
    LWFM_LAUNCH((weigh_backward<T, false, false>), plan.grid, plan.threads, plan.shared_bytes, on,
                arguments);
  }
  return cudaGetLastError();
}

template int weigh_pairs_backward(const EmbeddingWeightsGradientArguments<float>&, void*);
template int weigh_pairs_backward(const EmbeddingWeightsGradientArguments<double>&, void*);

}  // namespace lwfm
