// Macros that let the same kernel source compile with nvcc and with the CPU emulator of tests/simt,
// which executes it on machines without a GPU.
//
//   LWFM_SHARED(T, name, count)       a static shared array, T* name
//   LWFM_DYNAMIC_SHARED(T, name)      the dynamic shared memory of the launch, T* name
//   LWFM_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
//
// A kernel with several template arguments is launched as LWFM_LAUNCH((kernel<A, B>), ...).
// LWFM_WARP_REDUCE is 1 where __reduce_*_sync exist, LWFM_TENSOR_CORES where nvcuda::wmma
// multiplies in TF32 (both: compute capability 8.0 and newer).
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>

#define LWFM_SHARED(T, name, count) __shared__ T name[count]
#define LWFM_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(16) unsigned char lwfm_dynamic_shared_[]; \
  T* const name = reinterpret_cast<T*>(lwfm_dynamic_shared_)
#define LWFM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define LWFM_WARP_REDUCE 1
#define LWFM_TENSOR_CORES 1
#else
#define LWFM_WARP_REDUCE 0
#define LWFM_TENSOR_CORES 0
#endif

#else

#include "simt/emulator/emulator.h"

#ifndef LWFM_WARP_REDUCE
#define LWFM_WARP_REDUCE 1
#endif
#ifndef LWFM_TENSOR_CORES
#define LWFM_TENSOR_CORES 1
#endif

#endif
