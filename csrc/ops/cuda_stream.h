// The current CUDA stream of torch, and errors of launches.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>
#include <string>

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

}  // namespace lwfm
