// CUDA tensors for the kernels of cuda/: the device and stream to work on, and tensors as the plain
// structures that kernels take. Only for builds with CUDA.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "cuda/pair_arguments.h"
#include "tensor_views.h"

namespace lwfm {

// The cudaStream_t in use on a device. The function lives in torch's CUDA library, which is loaded
// wherever there is a CUDA tensor; it is looked up, not linked, so that this extension also loads
// into a torch without CUDA.
inline void* current_cuda_stream(std::int32_t device_index) {
  using Lookup = std::int32_t (*)(std::int32_t, void**);
  static const auto lookup = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* const symbol =
        library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
    return reinterpret_cast<Lookup>(symbol);
  }();
  void* stream = nullptr;
  if (lookup == nullptr || lookup(device_index, &stream) != 0) {
    throw std::runtime_error("lwfm: this torch does not tell its current CUDA stream");
  }
  return stream;
}

inline void require_launched(int error, const char* what) {
  if (error == 0) return;
  throw std::runtime_error(std::string("lwfm: launching ") + what + " failed with CUDA error " +
                           std::to_string(error));
}

// Makes the device of a tensor the current one as long as it lives; `stream` is its current stream.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& tensor)
      : guard_(tensor.get_device_index()),
        stream_(current_cuda_stream(tensor.get_device_index())) {}

  void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_;
};

// Throws unless `other` is on the device of `tensor`.
inline void require_same_device(const Tensor& tensor, const Tensor& other,
                                const std::string& name) {
  require(other.is_cuda() && other.get_device_index() == tensor.get_device_index(), name,
          " must be on the device of the other tensors");
}

inline int as_int(std::int64_t count) {
  require(count <= std::numeric_limits<int>::max(), "a pair has too many positions");
  return static_cast<int>(count);
}

// What all tensors of a launch share, from raw [..., P, M].
inline PairShape pair_shape(const Tensor& raw) {
  const std::int64_t dims = raw.dim() - 2;
  require(dims <= kMaxBatchDims, "at most ", std::to_string(kMaxBatchDims),
          " batch dimensions on CUDA, got ", std::to_string(dims));
  PairShape shape{
      {static_cast<int>(dims), 1, {}}, as_int(raw.size(dims)), as_int(raw.size(dims + 1))};
  for (std::int64_t d = 0; d < dims; ++d) {
    shape.batch.sizes[d] = raw.size(d);
    shape.batch.count *= raw.size(d);
  }
  return shape;
}

inline BatchStrides batch_strides(const Tensor& tensor, std::int64_t inner) {
  BatchStrides strides{};
  for (std::int64_t d = 0; d < tensor.dim() - inner; ++d) strides.of[d] = tensor.stride(d);
  return strides;
}

// T is const for a tensor that is only read.
template <class T>
PairVectors<T> pair_vectors(const Tensor& tensor) {
  return {data_of<T>(tensor), batch_strides(tensor, 1), tensor.stride(tensor.dim() - 1)};
}

template <class T>
PairBlocks<T> pair_blocks(const Tensor& tensor) {
  const std::int64_t d = tensor.dim() - 2;
  return {data_of<T>(tensor), batch_strides(tensor, 2), tensor.stride(d), tensor.stride(d + 1)};
}

template <class T>
PairScaledBlocks<T> pair_scaled_blocks(const Tensor& raw, const Tensor& row_scale,
                                       const Tensor& column_scale) {
  return {pair_blocks<const T>(raw), pair_vectors<const T>(row_scale),
          pair_vectors<const T>(column_scale)};
}

template <class T>
PairGradients<T> pair_gradients(const GradientTensors& to) {
  return {pair_blocks<T>(to.raw), data_of<T>(to.row_scale), data_of<T>(to.column_scale)};
}

// As require_blocks, and all on one CUDA device.
inline void require_device_blocks(const Tensor& raw, const Tensor& row_scale,
                                  const Tensor& column_scale, const std::string& name) {
  require_blocks(raw, row_scale, column_scale, name);
  require_same_device(raw, row_scale, "row_scale of " + name);
  require_same_device(raw, column_scale, "column_scale of " + name);
}

// Calls work(T{}) with the type of a tensor of float32 or float64.
template <class Work>
void for_dtype(const Tensor& tensor, const Work& work) {
  if (tensor.scalar_type() == ScalarType::Float) {
    work(float{});
  } else {
    work(double{});
  }
}

}  // namespace lwfm
