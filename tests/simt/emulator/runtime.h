// The SIMT model on one CPU thread: every CUDA thread is a fiber, blocks run in turn, and fibers
// switch only at barriers, warp collectives and (random schedule) atomics and fences. What kernels
// call is in collectives.h and intrinsics.h; this is the runtime below them, and the settings of
// tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "types.h"

namespace simt {

// Which runnable thread runs next: the next one, the previous one, any. A kernel must not care.
enum class Schedule { ascending, descending, random };

struct Options {
  Schedule schedule = Schedule::ascending;
  std::uint64_t seed = 1;
  std::size_t shared_limit = 48 * 1024;  // static and dynamic together, as without opting in
};

// For every launch from here on.
void configure(const Options& options);

// Thrown by the launch when a kernel breaks the rules; the message says what, where and which
// thread.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A line of the kernel's source: the default argument of everything that can be reported.
struct Place {
  const char* file;
  int line;

  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// The indices of the running thread and of its block.
struct Position {
  uint3 thread;
  unsigned lane, warp;
};

struct BlockPosition {
  uint3 block;
  dim3 block_size, grid_size;
};

const Position& position();
const BlockPosition& block_position();

enum class Collective {
  sync,
  shuffle,
  ballot,
  any,
  all,
  add,
  min_unsigned,
  max_unsigned,
  min_signed,
  max_signed,
  bit_and,
  bit_or,
  bit_xor,
  match_any,
  load_matrix,
  store_matrix,
  multiply_matrices,
};

// Waits for every lane of `mask` and returns this lane's result. `source`: the lane that a shuffle
// reads.
std::uint64_t warp_collective(Collective operation, unsigned mask, std::uint64_t value, int source,
                              Place place);

// Entry number `element` of a lane, of a matrix row by row: 7 * 23 = 1 (mod 32).
constexpr int matrix_entry(int lane, int element) {
  return 32 * element + (23 * (lane - element + 32) & 31);
}

// What a lane brings to a product d = a b + c of matrices, and where its entries of d go.
struct MatrixOperands {
  const float *a, *b, *c;
  float* d;
};

// Both wait for the whole warp; loading and storing, its lanes must come with one address.
void meet_for_matrix(Collective operation, const void* address, unsigned stride, Place place);
void multiply_fragments(const MatrixOperands& operands, Place place);

enum class Barrier { plain, count, all, any };

// Waits for every thread of the block; returns what the barrier counts.
int block_barrier(Barrier kind, bool predicate, Place place);

// Shared memory of the running block: poisoned with 0xFF (NaN), watched for overruns.
void* static_shared(const void* key, std::size_t bytes, Place place);
void* dynamic_shared();

void memory_fence();
void may_switch();  // a switch point of the random schedule

// Launches since the program began.
unsigned launches();

using Body = void (*)(const void* kernel);
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const char* name, Body body,
              const void* kernel);

// A launch: the arguments are converted to the kernel's parameters once, as CUDA does.
template <class... Parameters>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t, const char* name,
            void (*kernel)(Parameters...), std::common_type_t<Parameters>... arguments) {
  const auto bound = [&] { kernel(arguments...); };
  using Bound = decltype(bound);
  const Body body = [](const void* call) {
    (*static_cast<std::remove_reference_t<Bound>*>(call))();
  };
  run_grid(grid, block, shared_bytes, name, body, &bound);
}

}  // namespace simt

#define threadIdx (simt::position().thread)
#define blockIdx (simt::block_position().block)
#define blockDim (simt::block_position().block_size)
#define gridDim (simt::block_position().grid_size)
