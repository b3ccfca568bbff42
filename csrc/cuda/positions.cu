// Launches of the kernels of centred positions; see feature_kernels.h.
#include "feature_kernels.h"
#include "pair_plan.h"
#include "positions.cuh"

namespace lwfm {

namespace {

template <class Arguments>
unsigned grid_of(const Arguments& arguments) {
  const std::int64_t rows = arguments.pictures * arguments.of[0].map.positions();
  constexpr std::int64_t kRows = kPositionThreads / kWarp;
  return static_cast<unsigned>(std::min((rows + kRows - 1) / kRows, kMaxGrid));
}

}  // namespace

template <class T>
int centre_pictures(const PositionsArguments<T>& arguments, void* stream) {
  if (arguments.pictures == 0) return cudaSuccess;
  LWFM_LAUNCH((centre_positions<T>), grid_of(arguments), kPositionThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int centre_pictures_backward(const PositionsGradientArguments<T>& arguments, void* stream) {
  if (arguments.pictures == 0) return cudaSuccess;
  LWFM_LAUNCH((centre_positions_backward<T>), grid_of(arguments), kPositionThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template int centre_pictures(const PositionsArguments<float>&, void*);
template int centre_pictures(const PositionsArguments<double>&, void*);
template int centre_pictures_backward(const PositionsGradientArguments<float>&, void*);
template int centre_pictures_backward(const PositionsGradientArguments<double>&, void*);

}  // namespace lwfm
