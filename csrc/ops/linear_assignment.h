// lwfm::linear_assignment for other kernels.
#pragma once

#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace lwfm {

struct AssignmentTensors {
  torch::stable::Tensor assignment;           // the column of each row [..., N], int64
  std::optional<torch::stable::Tensor> u, v;  // the duals [..., N], [..., M], float64, if wanted

  // What lwfm::linear_assignment_duals returns.
  std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> all() const {
    return {assignment, *u, *v};
  }
};

// For cost [..., N, M], uninitialized and on its device.
AssignmentTensors new_assignment_tensors(const torch::stable::Tensor& cost, bool duals);

// cost [..., N, M] on the CPU. Throws for a problem that cannot be solved.
AssignmentTensors linear_assignment_cpu(const torch::stable::Tensor& cost, bool maximize,
                                        std::optional<double> cost_limit, bool duals);

// The columns [..., P] of the rows of cost [..., P, M], on the device of the costs.
inline torch::stable::Tensor assign(const torch::stable::Tensor& cost) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(cost),
                                    torch::stable::detail::from(false),
                                    torch::stable::detail::from(std::optional<double>())};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("lwfm::linear_assignment", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

}  // namespace lwfm
