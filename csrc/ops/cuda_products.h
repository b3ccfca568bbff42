// Products and lists of CUDA tensors by torch's own operators, which follow the user's settings of
// precision and know the current stream.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "tensor_views.h"

namespace lwfm {

// Calls aten::name with all of its arguments.
template <class... Arguments>
Tensor call_aten(const char* name, const char* overload, const Arguments&... arguments) {
  std::array<StableIValue, sizeof...(arguments)> stack{torch::stable::detail::from(arguments)...};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// to [B, m, n] = a [B, m, k] b [B, k, n]. The overload with a result is none that autocast knows.
inline void multiply_batch(const Tensor& a, const Tensor& b, const Tensor& to) {
  (void)call_aten("aten::bmm", "out", a, b, to);
}

// The same of single matrices.
inline void multiply_matrices(const Tensor& a, const Tensor& b, const Tensor& to) {
  (void)call_aten("aten::mm", "out", a, b, to);
}

// With the last two dimensions exchanged.
inline Tensor transposed(const Tensor& matrices) {
  return torch::stable::transpose(matrices, matrices.dim() - 2, matrices.dim() - 1);
}

// Rows of x, in a new tensor.
inline Tensor select_rows(const Tensor& x, const Tensor& rows) {
  return call_aten("aten::index_select", "", x, std::int64_t{0}, rows);
}

// The sum [count, ...] of the gradients of rows that select_rows has selected of x [count, ...]. In
// an order that depends on the rows alone, unlike that of index_add.
inline Tensor select_rows_backward(const Tensor& grad, const Tensor& rows, std::int64_t count) {
  std::vector<std::int64_t> shape(grad.sizes().begin(), grad.sizes().end());
  const Tensor flat = torch::stable::view(grad, {shape[0], grad.numel() / shape[0]});
  shape[0] = count;
  return torch::stable::view(
      call_aten("aten::embedding_dense_backward", "", flat, rows, count, std::int64_t{-1}, false),
      shape);
}

inline Tensor concatenate(const std::vector<Tensor>& tensors) {
  return call_aten("aten::cat", "", tensors, std::int64_t{0});
}

// The part first, ..., first + count - 1 along a dimension.
inline Tensor narrow(Tensor x, std::int64_t dim, std::int64_t first, std::int64_t count) {
  return torch::stable::narrow(x, dim, first, count);
}

inline Tensor empty_like(const Tensor& like, const std::vector<std::int64_t>& shape) {
  return torch::stable::new_empty(like, shape, like.scalar_type());
}

}  // namespace lwfm
