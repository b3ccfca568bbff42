// Launches of the kernels of centered positions; see feature_kernels.h.
#include "feature_kernels.h"
#include "pair_plan.h"
#include "positions.cuh"

namespace lwfm {

namespace {

template <class Arguments>
unsigned grid_of(const Arguments& arguments) {
  const std::int64_t rows = arguments.images * arguments.of[0].map.positions();
  constexpr std::int64_t kRows = kPositionThreads / kWarp;
  return static_cast<unsigned>(std::min((rows + kRows - 1) / kRows, kMaxGrid));
}

}  // namespace

template <class T>
int center_images(const PositionsArguments<T>& arguments, void* stream) {
  if (arguments.images == 0) return cudaSuccess;
  LWFM_LAUNCH((center_positions<T>), grid_of(arguments), kPositionThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int center_images_backward(const PositionsGradientArguments<T>& arguments, void* stream) {
  if (arguments.images == 0) return cudaSuccess;
  LWFM_LAUNCH((center_positions_backward<T>), grid_of(arguments), kPositionThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template int center_images(const PositionsArguments<float>&, void*);
template int center_images(const PositionsArguments<double>&, void*);
template int center_images_backward(const PositionsGradientArguments<float>&, void*);
template int center_images_backward(const PositionsGradientArguments<double>&, void*);

}  // namespace lwfm
