// lwfm::pixel_matching and its backward on CUDA tensors; the contract stands in pixel_matching.cpp,
// except that nothing waits for the device to find a pair without an assignment (a NaN among its
// cosines): its similarity is NaN and its assignment -1.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "assign.h"
#include "cuda/pair_kernels.h"
#include "device.h"
#include "matching_checks.h"

namespace {

using lwfm::GradientTensors;
using lwfm::PixelMatchingArguments;
using lwfm::ScalarType;
using torch::stable::Tensor;

constexpr const char* kName = "pixel_matching";

// Pairs of many positions: costs, then assignments, then similarities.
template <class T>
Tensor match_through_costs(const Tensor& raw, PixelMatchingArguments<T> arguments, void* stream) {
  const lwfm::PairShape& shape = arguments.shape;
  Tensor cost = lwfm::empty_for(raw, {shape.rows, shape.columns}, raw.scalar_type());
  lwfm::require_launched(
      lwfm::write_costs(shape, arguments.cosines, lwfm::data_of<T>(cost), stream), kName);
  Tensor assignment = lwfm::assign(cost);
  arguments.assignment = lwfm::data_of<std::int64_t>(assignment);
  lwfm::require_launched(lwfm::compare_pairs(arguments, stream), kName);
  return assignment;
}

template <class T>
std::tuple<Tensor, Tensor> match_all(const Tensor& raw, PixelMatchingArguments<T> arguments,
                                     void* stream) {
  const lwfm::PairShape& shape = arguments.shape;
  Tensor similarity = lwfm::empty_for(raw, {}, raw.scalar_type());
  arguments.similarity = lwfm::data_of<T>(similarity);
  if (std::max(shape.rows, shape.columns) > lwfm::kMaxAssignedPositions) {
    return {similarity, match_through_costs(raw, arguments, stream)};
  }
  Tensor assignment = lwfm::empty_for(raw, {shape.rows}, ScalarType::Long);
  arguments.assignment = lwfm::data_of<std::int64_t>(assignment);
  lwfm::require_launched(lwfm::match_pairs(arguments, stream), kName);
  return {similarity, assignment};
}

std::tuple<Tensor, Tensor> pixel_matching_cuda(const Tensor& raw, const Tensor& row_scale,
                                               const Tensor& column_scale, const Tensor& compared,
                                               const Tensor& compared_row_scale,
                                               const Tensor& compared_column_scale,
                                               std::int64_t top_k) {
  lwfm::require_device_blocks(raw, row_scale, column_scale, "raw");
  lwfm::require_device_blocks(compared, compared_row_scale, compared_column_scale, "compared");
  lwfm::require_same_device(raw, compared, "compared");
  lwfm::require_same_shape(raw, compared);
  const lwfm::PairShape shape = lwfm::pair_shape(raw);
  lwfm::require_top_k(shape.rows, shape.columns, top_k);
  const lwfm::OnDeviceOf device(raw);
  std::tuple<Tensor, Tensor> result;
  lwfm::for_dtype(raw, [&](auto number) {
    using T = decltype(number);
    const PixelMatchingArguments<T> arguments{
        shape,
        static_cast<int>(top_k),
        lwfm::pair_scaled_blocks<T>(raw, row_scale, column_scale),
        lwfm::pair_scaled_blocks<T>(compared, compared_row_scale, compared_column_scale),
        nullptr,
        nullptr};
    result = match_all<T>(raw, arguments, device.stream());
  });
  return result;
}

std::tuple<Tensor, Tensor, Tensor> pixel_matching_backward_cuda(
    const Tensor& grad, const Tensor& compared, const Tensor& row_scale, const Tensor& column_scale,
    const Tensor& assignment, std::int64_t top_k) {
  lwfm::require_device_blocks(compared, row_scale, column_scale, "compared");
  lwfm::require_same_device(compared, grad, "grad");
  lwfm::require_same_device(compared, assignment, "assignment");
  lwfm::require_of_forward(compared, grad, assignment);
  const lwfm::PairShape shape = lwfm::pair_shape(compared);
  lwfm::require_top_k(shape.rows, shape.columns, top_k);
  const lwfm::OnDeviceOf device(compared);
  const GradientTensors to = lwfm::gradients_for(compared);
  lwfm::for_dtype(compared, [&](auto number) {
    using T = decltype(number);
    const lwfm::PixelMatchingGradientArguments<T> arguments{
        shape,
        static_cast<int>(top_k),
        {lwfm::data_of<const T>(grad), lwfm::batch_strides(grad, 0), 0},
        lwfm::pair_scaled_blocks<T>(compared, row_scale, column_scale),
        lwfm::data_of<const std::int64_t>(assignment),
        lwfm::pair_gradients<T>(to)};
    lwfm::require_launched(lwfm::compare_pairs_backward(arguments, device.stream()),
                           "pixel_matching_backward");
  });
  return {to.raw, to.row_scale, to.column_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("pixel_matching", TORCH_BOX(&pixel_matching_cuda));
  library.impl("pixel_matching_backward", TORCH_BOX(&pixel_matching_backward_cuda));
}

#endif
