// lwfm::linear_assignment for other kernels.
#pragma once

#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>

#include <array>

namespace lwfm {

// cost [..., N, M] on the CPU -> the column of each row [..., N], int64. Throws for a problem that
// cannot be solved.
torch::stable::Tensor linear_assignment_cpu(const torch::stable::Tensor& cost, bool maximize);

// The columns [..., P] of the rows of cost [..., P, M], on the device of the costs.
inline torch::stable::Tensor assign(const torch::stable::Tensor& cost) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(cost),
                                    torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("lwfm::linear_assignment", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

}  // namespace lwfm
