// lwfm::correlation of float16 features.
#include "correlation_launch.cuh"

namespace lwfm {

template <>
int correlate_pairs(const CorrelationArguments<Half, float>& arguments, int multiprocessors,
                    void* stream) {
  return launch_correlation<__half>(arguments, multiprocessors, stream);
}

}  // namespace lwfm
