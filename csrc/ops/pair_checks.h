// What the CUDA operators on pairs check besides the shapes of blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "blocks.h"

namespace lwfm {

// Throws unless `compared` can stand in for `raw`.
inline void require_same_blocks(const Tensor& raw, const Tensor& compared) {
  bool same = compared.dim() == raw.dim() && compared.scalar_type() == raw.scalar_type();
  for (std::int64_t d = 0; same && d < raw.dim(); ++d) same = compared.size(d) == raw.size(d);
  require(same, "compared must have the shape and the dtype of raw");
}

inline void require_matched_pairs(std::int64_t rows, std::int64_t columns, std::int64_t top_k) {
  const std::int64_t pairs = std::min(rows, columns);
  require(top_k >= 1 && top_k <= pairs,
          "top_k must be 1 to " + std::to_string(pairs) + " (matched pairs)");
}

// Throws unless these belong to the forward pass that compared `compared`.
inline void require_of_forward(const Tensor& compared, const Tensor& grad,
                               const Tensor& assignment) {
  require(grad.dim() == compared.dim() - 2 && grad.scalar_type() == compared.scalar_type(),
          "grad must have the dtype and the batch of compared");
  require(assignment.dim() == compared.dim() - 1 && assignment.scalar_type() == ScalarType::Long &&
              assignment.is_contiguous(),
          "assignment must be the contiguous int64 tensor of the forward pass");
}

}  // namespace lwfm
