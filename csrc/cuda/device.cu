// What launches need to know of the device.
#include <cuda_runtime.h>

#include "pair_kernels.h"

namespace lwfm {

int multiprocessors() {
  int device = 0, count = 1;
  if (cudaGetDevice(&device) == cudaSuccess) {
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  }
  return count;
}

}  // namespace lwfm
