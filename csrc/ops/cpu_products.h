// Matrix products of plain memory on the CPU, by torch's matrix library, one thread each.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/matching/serial_products.h"

namespace lwfm {

// Calls work(0), ..., work(count - 1), in parallel. Products inside are serial: a parallel region
// is entered for a single piece of work too, so that the matrix library gives the same bits for
// every number of threads.
template <class Work>
void in_parallel(std::int64_t count, const Work& work) {
  torch::stable::parallel_for(0, std::max<std::int64_t>(count, 2), 1,
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t n = begin; n < std::min(end, count); ++n) work(n);
                              });
}

// The same as an argument.
struct InParallel {
  template <class Work>
  void operator()(std::int64_t count, const Work& work) const {
    in_parallel(count, work);
  }
};

// A matrix in memory of the caller.
template <class T>
struct MatrixView {
  T* data;
  std::int64_t rows, columns, row_stride, column_stride;
};

template <class T>
torch::stable::Tensor as_tensor(const MatrixView<T>& matrix) {
  const std::array<std::int64_t, 2> sizes{matrix.rows, matrix.columns},
      strides{matrix.row_stride, matrix.column_stride};
  using Number = std::remove_const_t<T>;
  constexpr auto kType = sizeof(Number) == sizeof(float) ? torch::headeronly::ScalarType::Float
                                                         : torch::headeronly::ScalarType::Double;
  return torch::stable::from_blob(const_cast<Number*>(matrix.data), {sizes.data(), sizes.size()},
                                  {strides.data(), strides.size()},
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU), kType);
}

// to = a b
template <class T>
void multiply(const MatrixView<const T>& a, const MatrixView<const T>& b, const MatrixView<T>& to) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(as_tensor(a)),
                                    torch::stable::detail::from(as_tensor(b)),
                                    torch::stable::detail::from(as_tensor(to))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  (void)torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

// The products that episodes need, of contiguous rows of C numbers.
struct CpuProducts {
  // to [a_rows, b_rows] = a b^T
  template <class T>
  static void rows(const T* a, std::int64_t a_rows, const T* b, std::int64_t b_rows, std::int64_t C,
                   T* to) {
    if (are_few(a_rows * b_rows * C)) return SerialProducts::rows(a, a_rows, b, b_rows, C, to);
    multiply<T>({a, a_rows, C, C, 1}, {b, C, b_rows, 1, C}, {to, a_rows, b_rows, b_rows, 1});
  }

  // to [rows, C] = a b with a [rows, columns], its rows a_stride apart, and b [columns, C]
  template <class T>
  static void matrices(const T* a, std::int64_t a_stride, std::int64_t rows, std::int64_t columns,
                       const T* b, std::int64_t C, T* to) {
    if (are_few(rows * columns * C)) {
      return SerialProducts::matrices(a, a_stride, rows, columns, b, C, to);
    }
    multiply<T>({a, rows, columns, a_stride, 1}, {b, columns, C, C, 1}, {to, rows, C, C, 1});
  }

  // to [columns, C] = a^T b with a [rows, columns], its rows a_stride apart, and b [rows, C]
  template <class T>
  static void transposed(const T* a, std::int64_t a_stride, std::int64_t rows, std::int64_t columns,
                         const T* b, std::int64_t C, T* to) {
    if (are_few(rows * columns * C)) {
      return SerialProducts::transposed(a, a_stride, rows, columns, b, C, to);
    }
    multiply<T>({a, columns, rows, 1, a_stride}, {b, rows, C, C, 1}, {to, columns, C, C, 1});
  }

 private:
  // A call of the matrix library takes as long as some ten thousand products.
  static bool are_few(std::int64_t products) { return products <= 1 << 15; }
};

}  // namespace lwfm
