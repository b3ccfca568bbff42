// lwfm::correlation of float64 features.
#include "correlation_launch.cuh"

namespace lwfm {

template <>
int correlate_pairs(const CorrelationArguments<double, double>& arguments, int multiprocessors,
                    void* stream) {
  return launch_correlation<double>(arguments, multiprocessors, stream);
}

}  // namespace lwfm
