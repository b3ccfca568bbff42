// What csrc/cuda/portable.h includes where the compiler is not nvcc.
#pragma once

#include "half.h"
#include "intrinsics.h"
#include "matrices.h"
#include "runtime.h"

// One key for each array of each instance of a kernel.
#define LWFM_SHARED(T, name, count) \
  static char simt_key_##name = 0;  \
  T* const name = static_cast<T*>(  \
      simt::static_shared(&simt_key_##name, sizeof(T) * (count), simt::Place::here()))
#define LWFM_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(simt::dynamic_shared())
#define LWFM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  simt::launch((grid), (block), (shared_bytes), (stream), #kernel, (kernel), __VA_ARGS__)
