// Tensors of any strides as batches of small problems: blocks [..., P, M] and vectors [..., P] for
// the arithmetic of core/.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/matching/block.h"

namespace lwfm {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

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

// T is const for a tensor that is only read.
template <class T>
T* data_of(const Tensor& tensor) {
  if constexpr (std::is_const_v<T>) {
    return static_cast<T*>(tensor.const_data_ptr());
  } else {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }
}

// Where each entry of a contiguous tensor [n, ...] begins.
template <class T>
std::vector<T*> images_of(const Tensor& tensor) {
  const std::int64_t n = tensor.size(0), size = n == 0 ? 0 : tensor.numel() / n;
  std::vector<T*> images;
  for (std::int64_t image = 0; image < n; ++image) {
    images.push_back(data_of<T>(tensor) + image * size);
  }
  return images;
}

// [..., N]
template <class T>
class Vectors {
 public:
  explicit Vectors(const Tensor& tensor)
      : batch_(tensor, 1), data_(data_of<T>(tensor)), stride_(tensor.stride(tensor.dim() - 1)) {}

  VectorView<T> operator[](std::int64_t b) const { return {data_ + batch_.offset(b), stride_}; }

 private:
  Batch batch_;
  T* data_;
  std::int64_t stride_;
};

// [..., N, M]
template <class T>
class BlockBatch {
 public:
  explicit BlockBatch(const Tensor& tensor) : batch_(tensor, 2), first_{} {
    const std::int64_t d = tensor.dim() - 2;
    first_ = {data_of<T>(tensor), tensor.size(d), tensor.size(d + 1), tensor.stride(d),
              tensor.stride(d + 1)};
  }

  const Batch& batch() const { return batch_; }
  std::int64_t count() const { return batch_.count(); }
  std::int64_t rows() const { return first_.rows; }
  std::int64_t columns() const { return first_.columns; }

  BlockView<T> operator[](std::int64_t b) const {
    BlockView<T> block = first_;
    block.data += batch_.offset(b);
    return block;
  }

 private:
  Batch batch_;
  BlockView<T> first_;
};

// raw [..., P, M] with row_scale [..., P] and column_scale [..., M].
template <class T>
struct ScaledBlocks {
  BlockBatch<const T> raw;
  Vectors<const T> row_scale;
  Vectors<const T> column_scale;

  ScaledBlocks(const Tensor& raw_tensor, const Tensor& rows, const Tensor& columns)
      : raw(raw_tensor), row_scale(rows), column_scale(columns) {}

  ScaledBlock<T> operator[](std::int64_t b) const {
    return {raw[b], row_scale[b], column_scale[b]};
  }
};

// The three gradients of a ScaledBlocks, allocated in the layout of its tensors.
struct GradientTensors {
  Tensor raw, row_scale, column_scale;
};

template <class T>
struct BlockGradients {
  BlockBatch<T> raw;
  Vectors<T> row_scale;
  Vectors<T> column_scale;

  explicit BlockGradients(const GradientTensors& tensors)
      : raw(tensors.raw), row_scale(tensors.row_scale), column_scale(tensors.column_scale) {}

  BlockGradient<T> operator[](std::int64_t b) const {
    return {raw[b], row_scale[b], column_scale[b]};
  }
};

// The tensor itself where it is contiguous: a call of the dispatcher takes a microsecond.
inline Tensor contiguous_of(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A contiguous tensor on the device of `like`, of its dtype if none is named. Not by
// torch::stable::new_empty: a call of the dispatcher takes a microsecond.
template <class Sizes>
Tensor empty_tensor(const Tensor& like, const Sizes& sizes, std::optional<ScalarType> dtype = {}) {
  constexpr std::size_t kDims = 64;  // as many as a tensor can have
  std::array<std::int64_t, kDims> strides;
  if (sizes.size() > kDims) throw std::invalid_argument("tensors have at most 64 dimensions");
  std::int64_t stride = 1;
  for (std::size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= std::max<std::int64_t>(std::data(sizes)[d], 1);
  }
  std::int32_t device = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<std::int64_t>(sizes.size()), std::data(sizes), strides.data(),
      torch::stable::detail::to<std::int32_t>(
          torch::stable::detail::from(dtype.value_or(like.scalar_type()))),
      device, like.get_device_index(), &handle));
  return Tensor(handle);
}

// Throws the message that the parts make, which are put together only then: a call of an operator
// has some dozens of conditions.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::string message;
  ((message += parts), ...);
  throw std::invalid_argument(message);
}

template <class Sizes>
bool has_shape(const Tensor& tensor, const Sizes& sizes) {
  const auto actual = tensor.sizes();
  return std::equal(actual.begin(), actual.end(), sizes.begin(), sizes.end());
}
inline bool has_shape(const Tensor& tensor, std::initializer_list<std::int64_t> sizes) {
  return has_shape<std::initializer_list<std::int64_t>>(tensor, sizes);
}

// Throws unless `tensor` has the batch of `raw` and then `inner` entries.
inline void require_vectors(const Tensor& raw, const Tensor& tensor, std::int64_t inner,
                            const std::string& name) {
  bool same = tensor.dim() == raw.dim() - 1 && tensor.scalar_type() == raw.scalar_type();
  for (std::int64_t d = 0; same && d < raw.dim() - 2; ++d) same = tensor.size(d) == raw.size(d);
  require(same && tensor.size(tensor.dim() - 1) == inner, name,
          " must have the dtype and the batch of raw, and one entry per position");
}

// Throws unless these make a ScaledBlocks of float32 or float64.
inline void require_blocks(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                           const std::string& name) {
  require(raw.dim() >= 2, name, " must be [..., P, M]");
  const ScalarType dtype = raw.scalar_type();
  require(dtype == ScalarType::Float || dtype == ScalarType::Double, name,
          " must be float32 or float64");
  require(raw.size(raw.dim() - 2) > 0 && raw.size(raw.dim() - 1) > 0, name,
          " must have at least one position on either side");
  require_vectors(raw, row_scale, raw.size(raw.dim() - 2), "row_scale of " + name);
  require_vectors(raw, column_scale, raw.size(raw.dim() - 1), "column_scale of " + name);
}

// [batch of raw..., last...], contiguous.
inline Tensor empty_for(const Tensor& raw, std::vector<std::int64_t> last, ScalarType dtype) {
  const auto sizes = raw.sizes();
  std::vector<std::int64_t> shape(sizes.begin(), sizes.end() - 2);
  shape.insert(shape.end(), last.begin(), last.end());
  return torch::stable::new_empty(raw, shape, dtype);
}

// Blocks per piece of work: enough that a piece takes some microseconds.
inline std::int64_t grain_of(std::int64_t rows, std::int64_t columns) {
  return std::max<std::int64_t>(1, 4096 / (rows * columns));
}

inline GradientTensors gradients_for(const Tensor& raw) {
  const std::int64_t rows = raw.size(raw.dim() - 2), columns = raw.size(raw.dim() - 1);
  return {torch::stable::empty_like(raw), empty_for(raw, {rows}, raw.scalar_type()),
          empty_for(raw, {columns}, raw.scalar_type())};
}

}  // namespace lwfm
