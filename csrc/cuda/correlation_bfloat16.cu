// lwfm::correlation of bfloat16 features.
#include "correlation_launch.cuh"

namespace lwfm {

template <>
int correlate_pairs(const CorrelationArguments<BFloat16, float>& arguments, int multiprocessors,
                    void* stream) {
  return launch_correlation<__nv_bfloat16>(arguments, multiprocessors, stream);
}

}  // namespace lwfm
