// What the CPU and the CUDA kernel of lwfm::linear_assignment share.
#pragma once

#include <torch/csrc/stable/tensor.h>

namespace lwfm {

// cost [..., N, M] on the CPU -> the column of each row [..., N], int64. Throws for a problem that
// cannot be solved.
torch::stable::Tensor linear_assignment_cpu(const torch::stable::Tensor& cost, bool maximize);

}  // namespace lwfm
