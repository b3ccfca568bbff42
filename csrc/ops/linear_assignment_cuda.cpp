// lwfm::linear_assignment and lwfm::linear_assignment_duals on CUDA tensors: by kernels where they
// were built, else through the host.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <tuple>

#include "core/assignment/limits.h"
#include "linear_assignment.h"

#if LWFM_WITH_CUDA
#include "cuda/assignment.h"
#include "device.h"
#endif

namespace {

using lwfm::AssignmentTensors;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What a call asks for besides the assignment itself.
struct Request {
  bool maximize;
  std::optional<double> cost_limit;
  bool duals;
};

// One transfer each way; waits for the device, and throws as the CPU kernel does.
AssignmentTensors through_host(const Tensor& cost, const Request& request) {
  const torch::stable::Device host(torch::headeronly::DeviceType::CPU);
  AssignmentTensors tensors = lwfm::linear_assignment_cpu(
      torch::stable::to(cost, host), request.maximize, request.cost_limit, request.duals);
  tensors.assignment = torch::stable::to(tensors.assignment, cost.device());
  if (request.duals) {
    tensors.u = torch::stable::to(*tensors.u, cost.device());
    tensors.v = torch::stable::to(*tensors.v, cost.device());
  }
  return tensors;
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
int launch(const Tensor& cost, const Request& request, const AssignmentTensors& outputs,
           const Tensor& statuses, void* workspace, void* stream) {
  const std::int64_t d = cost.dim() - 2;
  lwfm::AssignmentBatch<T> batch{};
  batch.costs = lwfm::data_of<const T>(cost);
  batch.count = statuses.numel();
  batch.rows = cost.size(d);
  batch.columns = cost.size(d + 1);
  batch.batch_stride = *batch_stride(cost);
  batch.row_stride = cost.stride(d);
  batch.column_stride = cost.stride(d + 1);
  batch.maximize = request.maximize;
  batch.cost_limit = request.cost_limit.value_or(lwfm::kInfinity);
  batch.assignment = lwfm::data_of<std::int64_t>(outputs.assignment);
  if (request.duals) {
    batch.u = lwfm::data_of<double>(*outputs.u);
    batch.v = lwfm::data_of<double>(*outputs.v);
  }
  batch.statuses = lwfm::data_of<std::int32_t>(statuses);
  batch.workspace = workspace;
  return lwfm::solve_assignments(batch, stream);
}

AssignmentTensors by_kernels(const Tensor& cost, const Request& request, bool limited) {
  const std::int64_t d = cost.dim() - 2, rows = cost.size(d), columns = cost.size(d + 1);
  const std::int64_t count = cost.numel() / (rows * columns);
  const torch::stable::accelerator::DeviceGuard guard(cost.get_device_index());
  AssignmentTensors outputs = lwfm::new_assignment_tensors(cost, request.duals);
  const Tensor statuses = torch::stable::new_empty(cost, {count}, ScalarType::Int);
  const std::int64_t bytes = lwfm::assignment_workspace_bytes(count, rows, columns, limited);
  const Tensor workspace = torch::stable::new_empty(cost, {bytes / 8}, ScalarType::Double);
  void* const memory = bytes == 0 ? nullptr : workspace.mutable_data_ptr();
  void* const stream = lwfm::current_cuda_stream(cost.get_device_index());
  const auto kernels = cost.scalar_type() == ScalarType::Float ? launch<float> : launch<double>;
  lwfm::require_launched(kernels(cost, request, outputs, statuses, memory, stream),
                         "linear_assignment");
  return outputs;
}

AssignmentTensors assign_on_device(const Tensor& cost, const Request& request) {
  const std::optional<ScalarType> dtype = kernel_dtype(cost.scalar_type());
  const std::int64_t dim = cost.dim();
  const double limit = request.cost_limit.value_or(lwfm::kInfinity);
  const bool limited = std::isfinite(limit), valid = limited || limit > 0;
  const bool fits =
      dim >= 2 && cost.numel() > 0 &&
      lwfm::solver_columns(cost.size(dim - 2), cost.size(dim - 1), limited) <= lwfm::kLongestSide;
  if (!valid || !fits || !dtype) return through_host(cost, request);
  const Tensor read = *dtype == cost.scalar_type() ? cost : torch::stable::to(cost, *dtype);
  return by_kernels(batch_stride(read) ? read : torch::stable::contiguous(read), request, limited);
}

#else

AssignmentTensors assign_on_device(const Tensor& cost, const Request& request) {
  return through_host(cost, request);
}

#endif

Tensor linear_assignment_cuda(const Tensor& cost, bool maximize, std::optional<double> cost_limit) {
  return assign_on_device(cost, {maximize, cost_limit, false}).assignment;
}

std::tuple<Tensor, Tensor, Tensor> linear_assignment_duals_cuda(const Tensor& cost, bool maximize,
                                                                std::optional<double> cost_limit) {
  return assign_on_device(cost, {maximize, cost_limit, true}).all();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("linear_assignment", TORCH_BOX(&linear_assignment_cuda));
  library.impl("linear_assignment_duals", TORCH_BOX(&linear_assignment_duals_cuda));
}
