// Tensors of any strides as sequences of small problems.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

namespace lwfm {

// The leading dimensions of a tensor [..., N, M] or [..., N]: everything but the last `inner` ones.
class Batch {
 public:
  Batch(const torch::stable::Tensor& tensor, std::int64_t inner) {
    for (std::int64_t d = 0; d < tensor.dim() - inner; ++d) {
      sizes_.push_back(tensor.size(d));
      strides_.push_back(tensor.stride(d));
      count_ *= tensor.size(d);
    }
  }

  std::int64_t count() const { return count_; }

  std::vector<std::int64_t> index_of(std::int64_t b) const {
    std::vector<std::int64_t> index(sizes_.size());
    for (std::size_t d = sizes_.size(); d-- > 0; b /= sizes_[d]) index[d] = b % sizes_[d];
    return index;
  }

  // Where problem b begins, in elements.
  std::int64_t offset(std::int64_t b) const {
    std::int64_t offset = 0;
    for (std::size_t d = sizes_.size(); d-- > 0; b /= sizes_[d])
      offset += b % sizes_[d] * strides_[d];
    return offset;
  }

 private:
  std::vector<std::int64_t> sizes_;
  std::vector<std::int64_t> strides_;
  std::int64_t count_ = 1;
};

}  // namespace lwfm
