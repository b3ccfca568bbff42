// lwfm::correlation of float32 features.
#include "correlation_launch.cuh"

namespace lwfm {

template <>
int correlate_pairs(const CorrelationArguments<float, float>& arguments, int multiprocessors,
                    void* stream) {
  return launch_correlation<float>(arguments, multiprocessors, stream);
}

}  // namespace lwfm
