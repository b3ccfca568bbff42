// Launches of the kernels of lwfm::encode_maps; see encode_kernels.h.
#include "encode_kernels.h"
#include "encode_maps.cuh"
#include "pair_plan.h"

namespace lwfm {

namespace {

unsigned grid_of(std::int64_t blocks) {
  return static_cast<unsigned>(std::min(std::max<std::int64_t>(blocks, 1), kMaxGrid));
}

// Blocks that hold one warp for each position of the largest layer.
template <class Arguments>
unsigned grid_of_positions(const Arguments& arguments) {
  constexpr std::int64_t kRows = kEncodeThreads / kWarp;
  std::int64_t most = 0;
  for (int l = 0; l < arguments.layers; ++l) {
    most = std::max(most, arguments.images * arguments.of[l].maps.positions());
  }
  return grid_of((most + kRows - 1) / kRows);
}

}  // namespace

template <class T>
int center_maps(const EncodeArguments<EncodedLayer<T>>& arguments, void* stream) {
  LWFM_LAUNCH((center_maps<T>), grid_of_positions(arguments), kEncodeThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int rectify_hidden(const EncodeArguments<EncodedLayer<T>>& arguments, void* stream) {
  LWFM_LAUNCH((rectify_hidden<T>), grid_of_positions(arguments), kEncodeThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int finish_encoding(const EncodeArguments<EncodedLayer<T>>& arguments, void* stream) {
  LWFM_LAUNCH((finish_encoding<T>), grid_of(arguments.images * arguments.layers), kEncodeThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int mask_rectified(const EncodeArguments<EncodedLayerGradient<T>>& arguments, void* stream) {
  LWFM_LAUNCH((mask_rectified<T>), grid_of_positions(arguments), kEncodeThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int mask_hidden(const EncodeArguments<EncodedLayerGradient<T>>& arguments, void* stream) {
  LWFM_LAUNCH((mask_hidden<T>), grid_of_positions(arguments), kEncodeThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

template <class T>
int differentiate_centering(const EncodeArguments<EncodedLayerGradient<T>>& arguments,
                            void* stream) {
  LWFM_LAUNCH((differentiate_centering<T>), grid_of_positions(arguments), kEncodeThreads, 0,
              static_cast<cudaStream_t>(stream), arguments);
  return cudaGetLastError();
}

#define LWFM_FOR_TYPE(T)                                                               \
  template int center_maps(const EncodeArguments<EncodedLayer<T>>&, void*);            \
  template int rectify_hidden(const EncodeArguments<EncodedLayer<T>>&, void*);         \
  template int finish_encoding(const EncodeArguments<EncodedLayer<T>>&, void*);        \
  template int mask_rectified(const EncodeArguments<EncodedLayerGradient<T>>&, void*); \
  template int mask_hidden(const EncodeArguments<EncodedLayerGradient<T>>&, void*);    \
  template int differentiate_centering(const EncodeArguments<EncodedLayerGradient<T>>&, void*);
LWFM_FOR_TYPE(float)
LWFM_FOR_TYPE(double)
#undef LWFM_FOR_TYPE

}  // namespace lwfm
