// lwfm::linear_assignment on CUDA tensors: by kernels where they were built, else through the host.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "linear_assignment.h"

#if LWFM_WITH_CUDA
#include "cuda/assignment.h"
#include "device.h"
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// One transfer each way; waits for the device, and throws as the CPU kernel does.
Tensor through_host(const Tensor& cost, bool maximize) {
  const torch::stable::Device host(torch::headeronly::DeviceType::CPU);
  return torch::stable::to(lwfm::linear_assignment_cpu(torch::stable::to(cost, host), maximize),
                           cost.device());
}

#if LWFM_WITH_CUDA

// The dtype in which the kernels read costs, exactly; none for 64-bit integers, which float64 does
// not hold, and for what is refused.
std::optional<ScalarType> kernel_dtype(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Half:
    case ScalarType::BFloat16:
    case ScalarType::Float:
      return ScalarType::Float;
    case ScalarType::Bool:
    case ScalarType::Byte:
    case ScalarType::Char:
    case ScalarType::Short:
    case ScalarType::UInt16:
    case ScalarType::Int:
    case ScalarType::UInt32:
    case ScalarType::Double:
      return ScalarType::Double;
    default:
      return std::nullopt;
  }
}

// The distance between neighboring problems where one stride serves all leading dimensions.
std::optional<std::int64_t> batch_stride(const Tensor& cost) {
  std::int64_t stride = 0, count = 1;
  for (std::int64_t d = cost.dim() - 3; d >= 0; --d) {
    if (cost.size(d) == 1) continue;
    if (count > 1 && cost.stride(d) != stride * count) return std::nullopt;
    if (count == 1) stride = cost.stride(d);
    count *= cost.size(d);
  }
  return stride;
}

template <class T>
int launch(const Tensor& cost, bool maximize, const Tensor& assignment, const Tensor& statuses,
           void* workspace, void* stream) {
  const std::int64_t d = cost.dim() - 2;
  const lwfm::AssignmentBatch<T> batch{static_cast<const T*>(cost.const_data_ptr()),
                                       statuses.numel(),
                                       cost.size(d),
                                       cost.size(d + 1),
                                       *batch_stride(cost),
                                       cost.stride(d),
                                       cost.stride(d + 1),
                                       maximize,
                                       static_cast<std::int64_t*>(assignment.mutable_data_ptr()),
                                       static_cast<std::int32_t*>(statuses.mutable_data_ptr()),
                                       workspace};
  return lwfm::solve_assignments(batch, stream);
}

Tensor by_kernels(const Tensor& cost, bool maximize) {
  const std::int64_t d = cost.dim() - 2, rows = cost.size(d), columns = cost.size(d + 1);
  const std::int64_t count = cost.numel() / (rows * columns);
  const auto sizes = cost.sizes();
  const torch::stable::accelerator::DeviceGuard guard(cost.get_device_index());
  const Tensor assignment =
      torch::stable::new_empty(cost, {sizes.begin(), sizes.end() - 1}, ScalarType::Long);
  const Tensor statuses = torch::stable::new_empty(cost, {count}, ScalarType::Int);
  const std::int64_t bytes = lwfm::assignment_workspace_bytes(count, rows, columns);
  const Tensor workspace = torch::stable::new_empty(cost, {bytes / 8}, ScalarType::Double);
  void* const memory = bytes == 0 ? nullptr : workspace.mutable_data_ptr();
  void* const stream = lwfm::current_cuda_stream(cost.get_device_index());
  const auto kernels = cost.scalar_type() == ScalarType::Float ? launch<float> : launch<double>;
  lwfm::require_launched(kernels(cost, maximize, assignment, statuses, memory, stream),
                         "linear_assignment");
  return assignment;
}

Tensor linear_assignment_cuda(const Tensor& cost, bool maximize) {
  const std::optional<ScalarType> dtype = kernel_dtype(cost.scalar_type());
  const std::int64_t dim = cost.dim();
  const bool fits = dim >= 2 && cost.numel() > 0 &&
                    std::max(cost.size(dim - 2), cost.size(dim - 1)) <= lwfm::kLongestSide;
  if (!fits || !dtype) return through_host(cost, maximize);
  const Tensor read = *dtype == cost.scalar_type() ? cost : torch::stable::to(cost, *dtype);
  return by_kernels(batch_stride(read) ? read : torch::stable::contiguous(read), maximize);
}

#else

Tensor linear_assignment_cuda(const Tensor& cost, bool maximize) {
  return through_host(cost, maximize);
}

#endif

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("linear_assignment", TORCH_BOX(&linear_assignment_cuda));
}
