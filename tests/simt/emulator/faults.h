// Kernels with planted faults that the emulator reports by itself.
#pragma once

#include <vector>

#include "cuda/portable.h"

namespace faults {

constexpr unsigned kFull = 0xffffffffu;

__global__ inline void divergent_barrier(float* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = 1;
    __syncthreads();
  } else {
    out[threadIdx.x] = 2;
    __syncthreads();
  }
}

__global__ inline void different_barriers(float* out) {
  if (threadIdx.x < 32) {
    out[threadIdx.x] = static_cast<float>(__syncthreads_count(1));
  } else {
    __syncthreads();
  }
}

__global__ inline void exit_before_barrier(float* out) {
  if (threadIdx.x >= 40) return;
  out[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] += out[39 - threadIdx.x];
}

__global__ inline void barrier_and_collective(float* out) {
  if (threadIdx.x < 16) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ inline void lanes_missing(float* out) {
  if (threadIdx.x % 32 < 20) out[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 1);
}

__global__ inline void lanes_exited(float* out) {
  if (threadIdx.x % 32 >= 20) return;
  out[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 1);
}

__global__ inline void lane_outside_its_mask(float* out) {
  out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
}

__global__ inline void reads_outside_the_mask(float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 20);
}

__global__ inline void different_masks(float* out) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : kFull;
  out[threadIdx.x] = static_cast<float>(__ballot_sync(mask, 1));
}

__global__ inline void different_collectives(float* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = static_cast<float>(__any_sync(kFull, 1));
  } else {
    out[threadIdx.x] = static_cast<float>(__all_sync(kFull, 1));
  }
}

__global__ inline void same_collective_on_two_lines(float* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __shfl_sync(kFull, 1.0f, 0);
  } else {
    out[threadIdx.x] = __shfl_sync(kFull, 2.0f, 0);
  }
}

__global__ inline void overrun_of_shared_array(float* out) {
  LWFM_SHARED(float, tile, 32);
  tile[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ inline void overrun_of_dynamic_shared(float* out) {
  LWFM_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ inline void too_much_shared_memory(float* out) {
  LWFM_SHARED(float, tile, 48 * 1024 / 4);
  LWFM_SHARED(float, more, 1);
  tile[threadIdx.x] = more[0] = 1;
  out[threadIdx.x] = tile[threadIdx.x];
}

// A product of matrices that begins in the way of `faulty`.
template <class Faulty>
__device__ void multiply(float* out, const Faulty& faulty) {
  namespace wmma = nvcuda::wmma;
  struct alignas(32) Matrices {
    float of[256];
  };
  LWFM_SHARED(Matrices, shared, 1);
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> a;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> b;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sums;
  for (int n = static_cast<int>(threadIdx.x); n < 256; n += 32) shared[0].of[n] = 1.0f;
  __syncwarp();
  wmma::load_matrix_sync(b, shared[0].of, 16);
  wmma::fill_fragment(sums, 0.0f);
  faulty(shared[0].of, a);
  wmma::mma_sync(sums, a, b, sums);
  out[threadIdx.x] = sums.x[0];
}

__global__ inline void lanes_missing_from_a_product(float* out) {
  multiply(out, [](const float* from, auto& a) {
    if (threadIdx.x < 20) nvcuda::wmma::load_matrix_sync(a, from, 8);
  });
}

__global__ inline void not_rounded(float* out) {
  multiply(out, [](const float* from, auto& a) {
    nvcuda::wmma::load_matrix_sync(a, from, 8);
    a.x[1] = 1.0f + 0x1p-12f;
  });
}

__global__ inline void another_address(float* out) {
  multiply(out, [](const float* from, auto& a) {
    nvcuda::wmma::load_matrix_sync(a, from + threadIdx.x / 16 * 8, 8);
  });
}

__global__ inline void misaligned_matrix(float* out) {
  multiply(out, [](const float* from, auto& a) { nvcuda::wmma::load_matrix_sync(a, from + 4, 8); });
}

struct Fault {
  const char* name;
  void (*kernel)(float*);
  unsigned threads;
  std::vector<const char*> parts;  // of the message
  bool has_line = true;

  void run(float* out) const { LWFM_LAUNCH(kernel, 2, threads, 32 * sizeof(float), nullptr, out); }
};

inline const std::vector<Fault> kReported = {
    {"divergent barrier", divergent_barrier, 32, {"divergent barrier"}},
    {"barriers of two kinds", different_barriers, 64, {"divergent barrier"}},
    {"exit before a barrier", exit_before_barrier, 64, {"__syncthreads", "exit"}},
    {"barrier beside a collective",
     barrier_and_collective,
     32,
     {"deadlock", "__syncwarp", "__syncthreads"}},
    {"lanes missing from a collective", lanes_missing, 32, {"__shfl_sync", "0xffffffff"}},
    {"lanes exited before a collective", lanes_exited, 64, {"__shfl_sync", "0xffffffff"}},
    {"lane outside its mask", lane_outside_its_mask, 32, {"not in its own mask 0x0000ffff"}},
    {"shuffle from outside the mask", reads_outside_the_mask, 32, {"reads lane 20"}},
    {"masks that differ", different_masks, 32, {"__ballot_sync"}},
    {"collectives that differ", different_collectives, 32, {"divergent collective"}},
    {"one collective on two lines", same_collective_on_two_lines, 32, {"divergent collective"}},
    {"collective of a partial warp", lanes_missing, 40, {"lanes that have exited or never were"}},
    {"overrun of a shared array", overrun_of_shared_array, 32, {"overrun of the shared array"}},
    {"overrun of dynamic shared memory",
     overrun_of_dynamic_shared,
     32,
     {"overrun of the dynamic"},
     false},
    {"lanes missing from a product of matrices",
     lanes_missing_from_a_product,
     32,
     {"divergent collective", "load_matrix_sync", "mma_sync"}},
    {"a product of numbers that are not rounded", not_rounded, 32, {"not rounded to TF32"}},
    {"a matrix at two addresses", another_address, 32, {"load_matrix_sync", "different addresses"}},
    {"a matrix that is not aligned", misaligned_matrix, 32, {"multiple of 32 bytes"}},
    {"too much shared memory", too_much_shared_memory, 32, {"exceeds the limit"}, false},
};

}  // namespace faults
