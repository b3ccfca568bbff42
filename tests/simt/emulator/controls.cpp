// controls FAULT SCHEDULE faulty|repaired: one planted fault that a sanitizer must report, or its
// repaired twin, which must run clean.
#include <cstdio>
#include <cstring>
#include <memory>

#include "cuda/portable.h"

namespace {

template <bool Faulty>
__global__ void missing_barrier(const float* in, float* out) {
  LWFM_SHARED(float, tile, 64);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!Faulty) __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}

template <bool Faulty>
__global__ void missing_syncwarp(const float* in, float* out) {
  LWFM_SHARED(float, tile, 64);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!Faulty) __syncwarp();
  out[blockIdx.x * 64 + threadIdx.x] = tile[threadIdx.x ^ 31];
}

template <bool Faulty>
__global__ void shuffle_is_no_fence(const float* in, float* out) {
  LWFM_SHARED(float, tile, 64);
  tile[threadIdx.x] = in[threadIdx.x];
  const float first = __shfl_sync(0xffffffffu, in[threadIdx.x], 0);
  if (!Faulty) __syncwarp();
  out[blockIdx.x * 64 + threadIdx.x] = tile[threadIdx.x ^ 31] + first;
}

template <bool Faulty>
__global__ void blocks_add(const float* in, float* out) {
  if (threadIdx.x != 0) return;
  if (Faulty) {
    out[0] += in[0];
  } else {
    atomicAdd(out, in[0]);
  }
}

// The last block to finish sums what the others have written.
template <bool Faulty>
__global__ void missing_fence(const float* in, float* out) {
  LWFM_SHARED(bool, last, 1);
  unsigned* const arrived = reinterpret_cast<unsigned*>(out + 64);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = in[0];
    if (!Faulty) __threadfence();
    last[0] = atomicAdd(arrived, 1u) == gridDim.x - 1;
    if (!Faulty) __threadfence();
  }
  __syncthreads();
  if (!last[0] || threadIdx.x != 1) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) sum += out[block];
  out[100] = sum;
}

template <bool Faulty>
__global__ void shared_overrun(const float* in, float* out) {
  LWFM_SHARED(float, tile, 64);
  LWFM_SHARED(float, other, 64);
  tile[threadIdx.x + (Faulty ? 1 : 0)] = other[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x] + other[threadIdx.x];
}

template <bool Faulty>
__global__ void dynamic_overrun(const float* in, float* out) {
  LWFM_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + (Faulty ? 1 : 0)] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

template <bool Faulty>
__global__ void global_overrun(const float* in, float* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i + (Faulty ? 1 : 0)] = in[threadIdx.x];
}

template <bool Faulty>
__global__ void stack_overrun(const float* in, float* out) {
  float own[8];
  for (int i = 0; i < 8; ++i) own[i] = in[i];
  volatile int last = Faulty ? 8 : 7;
  out[threadIdx.x] = own[last];
}

using Kernel = void (*)(const float*, float*);
struct Control {
  const char* name;
  Kernel faulty, repaired;
};

#define CONTROL(name) {#name, name<true>, name<false>}
constexpr Control kControls[] = {
    CONTROL(missing_barrier), CONTROL(missing_syncwarp), CONTROL(shuffle_is_no_fence),
    CONTROL(blocks_add),      CONTROL(missing_fence),    CONTROL(shared_overrun),
    CONTROL(dynamic_overrun), CONTROL(global_overrun),   CONTROL(stack_overrun)};

simt::Schedule schedule_named(const char* name) {
  if (std::strcmp(name, "random") == 0) return simt::Schedule::random;
  const bool ascending = std::strcmp(name, "ascending") == 0;
  return ascending ? simt::Schedule::ascending : simt::Schedule::descending;
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  simt::configure({schedule_named(words[2])});
  const bool faulty = std::strcmp(words[3], "faulty") == 0;
  for (const Control& control : kControls) {
    if (std::strcmp(control.name, words[1]) != 0) continue;
    const auto in = std::make_unique<float[]>(64), out = std::make_unique<float[]>(128);
    LWFM_LAUNCH(faulty ? control.faulty : control.repaired, 2, 64, 64 * sizeof(float), nullptr,
                in.get(), out.get());
    std::puts("ran to the end");
    return 0;
  }
  return 2;
}
