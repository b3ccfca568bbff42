// lwfm::optimal_transport: cost [..., N, M], row_weights [..., N], column_weights [..., M], all
// float32 or all float64 -> plan [..., N, M] in their dtype, duals [..., N] and [..., M], float64.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "core/transport.h"
#include "core/transport/error_message.h"
#include "problem_threads.h"
#include "signals.h"
#include "tensor_views.h"

namespace {

using lwfm::ScalarType;
using lwfm::TransportStatus;
using torch::stable::Tensor;

// A batch of problems in tensors of any strides.
template <class T>
class Problems {
 public:
  Problems(const Tensor& cost, const Tensor& row_weights, const Tensor& column_weights)
      : cost_(cost), row_weights_(row_weights), column_weights_(column_weights) {}

  const lwfm::BlockBatch<const T>& costs() const { return cost_; }

  lwfm::TransportProblem<T> operator[](std::int64_t b) const {
    const auto block = cost_[b];
    const auto rows = row_weights_[b], columns = column_weights_[b];
    return {{block.data, cost_.rows(), cost_.columns(), block.row_stride, block.column_stride},
            {rows.data, cost_.rows(), rows.stride},
            {columns.data, cost_.columns(), columns.stride}};
  }

 private:
  lwfm::BlockBatch<const T> cost_;
  lwfm::Vectors<const T> row_weights_, column_weights_;
};

template <class T>
void solve_all(const Problems<T>& problems, const lwfm::TransportAnswer<T>& answers) {
  const std::int64_t count = problems.costs().count();
  const std::int64_t rows = problems.costs().rows(), columns = problems.costs().columns();
  std::vector<TransportStatus> statuses(static_cast<std::size_t>(count), TransportStatus::ok);
  lwfm::Interruption interruption = lwfm::interruption_by_signals();
  const std::int64_t grain =
      std::max<std::int64_t>(1, 1024 / std::max<std::int64_t>(1, rows * columns));
  lwfm::solve_on_threads(count, grain, interruption, [&](std::int64_t begin, std::int64_t end) {
    lwfm::TransportWorkspace workspace;
    for (std::int64_t b = begin; b < end && !interruption.requested(); ++b) {
      const lwfm::TransportAnswer<T> answer{answers.plan + b * rows * columns, answers.u + b * rows,
                                            answers.v + b * columns};
      statuses[static_cast<std::size_t>(b)] =
          lwfm::solve_transport(problems[b], &interruption, workspace, answer);
    }
  });
  if (interruption.requested()) throw std::runtime_error("optimal_transport: interrupted");
  const auto bad = std::find_if(statuses.begin(), statuses.end(), [](TransportStatus status) {
    return status != TransportStatus::ok;
  });
  if (bad == statuses.end()) return;
  if (*bad == TransportStatus::out_of_memory) throw std::bad_alloc();
  const std::int64_t b = bad - statuses.begin();
  throw std::invalid_argument(
      "optimal_transport: " +
      lwfm::describe_failure(*bad, problems[b], problems.costs().batch().index_of(b)));
}

// Whether `weights` is [batch of cost..., size].
bool are_weights_of(const Tensor& cost, const Tensor& weights, std::int64_t size) {
  const auto sizes = cost.sizes();
  std::vector<std::int64_t> expected(sizes.begin(), sizes.end() - 2);
  expected.push_back(size);
  return lwfm::has_shape(weights, expected) && weights.dim() == cost.dim() - 1 &&
         weights.scalar_type() == cost.scalar_type();
}

std::tuple<Tensor, Tensor, Tensor> optimal_transport_cpu(const Tensor& cost,
                                                         const Tensor& row_weights,
                                                         const Tensor& column_weights) {
  const ScalarType dtype = cost.scalar_type();
  lwfm::require(dtype == ScalarType::Float || dtype == ScalarType::Double,
                "optimal_transport: cost must be float32 or float64");
  const std::int64_t d = cost.dim() - 2;
  lwfm::require(d >= 0 && are_weights_of(cost, row_weights, cost.size(d)) &&
                    are_weights_of(cost, column_weights, cost.size(d + 1)),
                "optimal_transport: cost must be [..., N, M], row_weights [..., N] and "
                "column_weights [..., M], of one dtype");
  const auto sizes = cost.sizes();
  const Tensor plan =
      torch::stable::new_empty(cost, {sizes.begin(), sizes.end()}, cost.scalar_type());
  const Tensor u = lwfm::empty_for(cost, {cost.size(d)}, ScalarType::Double);
  const Tensor v = lwfm::empty_for(cost, {cost.size(d + 1)}, ScalarType::Double);
  double* const to_u = lwfm::data_of<double>(u);
  double* const to_v = lwfm::data_of<double>(v);
  if (dtype == ScalarType::Float) {
    solve_all<float>({cost, row_weights, column_weights}, {lwfm::data_of<float>(plan), to_u, to_v});
  } else {
    solve_all<double>({cost, row_weights, column_weights},
                      {lwfm::data_of<double>(plan), to_u, to_v});
  }
  return {plan, u, v};
}

// Through the host: one transfer each way; waits for the device, and throws as on the CPU.
std::tuple<Tensor, Tensor, Tensor> optimal_transport_cuda(const Tensor& cost,
                                                          const Tensor& row_weights,
                                                          const Tensor& column_weights) {
  const auto on = [](const Tensor& tensor, const torch::stable::Device& device) {
    return torch::stable::to(tensor, device);
  };
  const torch::stable::Device host(torch::headeronly::DeviceType::CPU);
  const auto [plan, u, v] =
      optimal_transport_cpu(on(cost, host), on(row_weights, host), on(column_weights, host));
  return {on(plan, cost.device()), on(u, cost.device()), on(v, cost.device())};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "optimal_transport(Tensor cost, Tensor row_weights, Tensor column_weights)"
      " -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("optimal_transport", TORCH_BOX(&optimal_transport_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("optimal_transport", TORCH_BOX(&optimal_transport_cuda));
}
