// lwfm::linear_assignment as other operators call it.
#pragma once

#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>

#include <array>

namespace lwfm {

// The columns [..., P] of the rows of cost [..., P, M], on the device of the costs.
inline torch::stable::Tensor assign(const torch::stable::Tensor& cost) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(cost),
                                    torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("lwfm::linear_assignment", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

}  // namespace lwfm
