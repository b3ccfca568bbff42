// Launches, shared memory and atomics that are right, and every planted fault that the emulator
// must report by itself, with the line in the kernel's source.
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cpp/check.h"
#include "cuda/portable.h"
#include "faults.h"
#include "schedules.h"

namespace {

__global__ void number_threads(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned size = blockDim.x * blockDim.y * blockDim.z;
  atomicAdd(out + block * size + thread, static_cast<int>(1 + block * size + thread));
}

void every_thread_runs_once() {
  const dim3 grid(3, 2, 2), block(5, 3, 7);
  std::vector<int> out(12 * 105, 0);
  LWFM_LAUNCH(number_threads, grid, block, 0, nullptr, out.data());
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == static_cast<int>(i) + 1);
}

__global__ void reverse(const float* in, float* out) {
  LWFM_SHARED(float, tile, 96);
  LWFM_DYNAMIC_SHARED(float, copy);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x] = in[i];
  __syncthreads();
  copy[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
  __syncthreads();
  out[i] = copy[threadIdx.x];
}

void shared_memory_passes_values() {
  std::vector<float> in(4 * 96), out(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  LWFM_LAUNCH(reverse, 4, 96, 96 * sizeof(float), nullptr, in.data(), out.data());
  for (std::size_t i = 0; i < in.size(); ++i) CHECK(out[i] == in[i / 96 * 96 + 95 - i % 96]);
}

__global__ void update(unsigned* words, double* sum, unsigned long long* large) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(words, i);
  atomicSub(words + 1, i);
  atomicMin(words + 2, i + 3);
  atomicMax(words + 3, i);
  atomicOr(words + 4, 1u << i % 32);
  atomicAnd(words + 5, ~(1u << i % 16));
  atomicXor(words + 6, i);
  if (atomicCAS(words + 7, 0u, i + 1) == 0u) atomicExch(words + 8, i + 1);
  atomicAdd(sum, 0.5);
  atomicMax(large, (1ull << 40) + i);
}

void atomics_lose_nothing() {
  std::vector<unsigned> words(9, 0);
  words[2] = words[5] = 0xffffffffu;
  double sum = 0;
  unsigned long long large = 0;
  LWFM_LAUNCH(update, 5, 40, 0, nullptr, words.data(), &sum, &large);
  unsigned total = 0, parity = 0;
  for (unsigned i = 0; i < 200; ++i) {
    total += i;
    parity ^= i;
  }
  CHECK(words[0] == total && words[1] == 0u - total);
  CHECK(words[2] == 3 && words[3] == 199);
  CHECK(words[4] == 0xffffffffu && words[5] == 0xffff0000u && words[6] == parity);
  CHECK(words[7] != 0 && words[7] == words[8]);
  CHECK(sum == 100 && large == (1ull << 40) + 199);
}

__global__ void read_unwritten(float* out, int* number) {
  LWFM_SHARED(float, tile, 32);
  LWFM_DYNAMIC_SHARED(int, extra);
  if (threadIdx.x < 16) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
  *number = extra[0];
}

[[maybe_unused]] void unwritten_shared_memory_is_poison() {
  std::vector<float> out(32, 0);
  int number = 0;
  for (int round = 0; round < 2; ++round) {  // of the second block too
    LWFM_LAUNCH(read_unwritten, 2, 32, sizeof(int), nullptr, out.data(), &number);
    for (std::size_t i = 0; i < 32; ++i) CHECK(i < 16 ? out[i] == 1 : std::isnan(out[i]));
    CHECK(number == -1);
  }
}

// The message of the error that a launch throws; empty if it throws none.
std::string failure(const std::function<void()>& launch) {
  try {
    launch();
  } catch (const simt::Error& error) {
    return error.what();
  }
  return "";
}

[[maybe_unused]] void planted_faults_are_reported() {
  std::vector<float> out(256, 0);
  for (const faults::Fault& fault : faults::kReported) {
    const std::string message = failure([&] { fault.run(out.data()); });
    bool found = message.find("faults.h:") != std::string::npos || !fault.has_line;
    for (const char* part : fault.parts) found = found && message.find(part) != std::string::npos;
    check::report(found, (std::string(fault.name) + " -> " + message).c_str(), __FILE__, __LINE__);
  }
  shared_memory_passes_values();  // the machine is whole after a failure
}

void impossible_launches_are_refused() {
  std::vector<int> out(4096);
  const auto number = [&](dim3 grid, dim3 block, std::size_t shared) {
    return failure([&] { LWFM_LAUNCH(number_threads, grid, block, shared, nullptr, out.data()); });
  };
  CHECK(number(1, 1025, 0).find("invalid launch") != std::string::npos);
  CHECK(number(0, 32, 0).find("invalid launch") != std::string::npos);
  CHECK(number(dim3(1, 65536), 32, 0).find("invalid launch") != std::string::npos);
  CHECK(number(1, dim3(1, 1, 65), 0).find("invalid launch") != std::string::npos);
  CHECK(number(1, 32, 48 * 1024 + 1).find("exceeds the limit") != std::string::npos);
  CHECK(number(1, 32, 48 * 1024).empty());
}

}  // namespace

int main() {
  simt::for_each_schedule([] {
    every_thread_runs_once();
    shared_memory_passes_values();
    atomics_lose_nothing();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    planted_faults_are_reported();  // which the sanitizers report first: see controls.cpp
    unwritten_shared_memory_is_poison();
#endif
    impossible_launches_are_refused();
  });
  return check::result();
}
