// lwfm::embedding_weights and its backward on CUDA tensors; the contract is in
// embedding_weights.cpp.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/pair_kernels.h"
#include "device.h"

namespace {

using lwfm::GradientTensors;
using lwfm::ScalarType;
using torch::stable::Tensor;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

Two embedding_weights_cuda(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                           double temperature) {
  lwfm::require_device_blocks(raw, row_scale, column_scale, "raw");
  const lwfm::OnDeviceOf device(raw);
  const lwfm::PairShape shape = lwfm::pair_shape(raw);
  const ScalarType dtype = raw.scalar_type();
  Tensor a = lwfm::empty_for(raw, {shape.rows}, dtype),
         b = lwfm::empty_for(raw, {shape.columns}, dtype);
  lwfm::for_dtype(raw, [&](auto number) {
    using T = decltype(number);
    const lwfm::EmbeddingWeightsArguments<T> arguments{
        shape, static_cast<T>(temperature),
        lwfm::pair_scaled_blocks<T>(raw, row_scale, column_scale), lwfm::data_of<T>(a),
        lwfm::data_of<T>(b)};
    lwfm::require_launched(lwfm::weigh_pairs(arguments, device.stream()), "embedding_weights");
  });
  return {a, b};
}

Three embedding_weights_backward_cuda(const Tensor& grad_a, const Tensor& grad_b, const Tensor& raw,
                                      const Tensor& row_scale, const Tensor& column_scale,
                                      double temperature) {
  lwfm::require_device_blocks(raw, row_scale, column_scale, "raw");
  const lwfm::OnDeviceOf device(raw);
  const lwfm::PairShape shape = lwfm::pair_shape(raw);
  lwfm::require_vectors(raw, grad_a, shape.rows, "grad_a");
  lwfm::require_vectors(raw, grad_b, shape.columns, "grad_b");
  for (const Tensor* grad : {&grad_a, &grad_b}) {
    lwfm::require_same_device(raw, *grad, "every gradient");
  }
  const GradientTensors to = lwfm::gradients_for(raw);
  lwfm::for_dtype(raw, [&](auto number) {
    using T = decltype(number);
    const lwfm::EmbeddingWeightsGradientArguments<T> arguments{
        shape,
        static_cast<T>(temperature),
        lwfm::pair_scaled_blocks<T>(raw, row_scale, column_scale),
        lwfm::pair_vectors<const T>(grad_a),
        lwfm::pair_vectors<const T>(grad_b),
        lwfm::pair_gradients<T>(to)};
    lwfm::require_launched(lwfm::weigh_pairs_backward(arguments, device.stream()),
                           "embedding_weights_backward");
  });
  return {to.raw, to.row_scale, to.column_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("embedding_weights", TORCH_BOX(&embedding_weights_cuda));
  library.impl("embedding_weights_backward", TORCH_BOX(&embedding_weights_backward_cuda));
}

#endif
