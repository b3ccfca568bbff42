// Launches of the kernels of class terms; see feature_kernels.h.
#include "class_terms.cuh"
#include "feature_kernels.h"
#include "pair_plan.h"

namespace lwfm {

namespace {

unsigned grid_of(std::int64_t blocks) { return static_cast<unsigned>(std::min(blocks, kMaxGrid)); }

}  // namespace

template <class T>
int compare_classes(const ClassTermsArguments<T>& arguments, void* stream) {
  const ClassTermsInputs<T>& in = arguments.in;
  if (in.Q == 0) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  LWFM_LAUNCH((class_terms<T>), grid_of(in.Q * in.classes.way), kSumThreads, 0, on, arguments);
  LWFM_LAUNCH((class_features<T>), grid_of(in.Q), kSumThreads, 0, on, in, arguments.features);
  return cudaGetLastError();
}

template <class T>
int compare_classes_backward(const ClassTermsGradientArguments<T>& arguments, void* stream) {
  const ClassTermsInputs<T>& in = arguments.in;
  const auto on = static_cast<cudaStream_t>(stream);
  if (in.Q > 0) {
    LWFM_LAUNCH((class_terms_backward<T>), grid_of(in.Q * in.classes.way), kSumThreads, 0, on,
                arguments);
    LWFM_LAUNCH((class_query_gradient<T>), grid_of(in.Q * in.M), kSumThreads, 0, on, arguments);
  }
  LWFM_LAUNCH((class_support_gradient<T>), grid_of(in.S * in.P), kSumThreads, 0, on, arguments);
  return cudaGetLastError();
}

template int compare_classes(const ClassTermsArguments<float>&, void*);
template int compare_classes(const ClassTermsArguments<double>&, void*);
template int compare_classes_backward(const ClassTermsGradientArguments<float>&, void*);
template int compare_classes_backward(const ClassTermsGradientArguments<double>&, void*);

}  // namespace lwfm
