// The state of the running grid, shared by the runtime's own files.
//
// Types and templates here belong to the runtime alone: it is compiled without sanitizers, and a
// template instance shared with an instrumented file might be linked in its instrumented form.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "fiber.h"
#include "runtime.h"

namespace simt {

struct Thread {
  enum class State { runnable, at_barrier, in_collective, exited };

  Position position;
  State state;
  Place place;  // where it waits
  Collective operation;
  unsigned mask;
  std::uint64_t value, result;
  int source;
  Fiber fiber;
};

// A bit per lane.
struct Warp {
  std::uint32_t runnable, waiting, absent;  // absent: exited, or beyond the block's last thread
};

struct BarrierState {
  unsigned arrived;
  int satisfied;
  Barrier kind;
  Place place;
};

struct Machine {
  Options options;
  std::uint64_t random = 1;
  BlockPosition block;
  std::vector<Thread*> threads;  // grows to the largest block; the first `count` run
  std::vector<Warp> warps;
  unsigned count = 0, running = 0;
  BarrierState barrier;
  Fiber host;
  Thread* current = nullptr;  // null while the host runs
  const char* kernel = "";
  Body body = nullptr;
  const void* bound = nullptr;
  unsigned launches = 0;
  std::string failure;  // not empty: the grid is being given up

  Thread& thread(unsigned warp, unsigned lane) { return *threads[warp * 32 + lane]; }
};

extern Machine& machine;

// Lowest set bits first: for (Lanes lanes(mask); lanes; ++lanes) use(*lanes).
class Lanes {
 public:
  explicit Lanes(std::uint32_t mask) : mask_(mask) {}
  explicit operator bool() const { return mask_ != 0; }
  unsigned operator*() const { return static_cast<unsigned>(__builtin_ctz(mask_)); }
  void operator++() { mask_ &= mask_ - 1; }

 private:
  std::uint32_t mask_;
};

std::uint32_t random_below(std::uint32_t bound);
const char* name_of(Collective operation);
std::string describe(Place place);

inline bool same_place(Place a, Place b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// Stops the grid: the launch throws an Error with this message, the block and the thread.
[[noreturn]] void fail(const std::string& message);

void make_runnable(Thread& thread);
void stop_running(Thread& thread, Thread::State state);

// Runs other threads until this one is runnable again.
void wait();

// Hands on after this thread's release of a barrier or collective, where the schedule wants it.
void after_release(Thread& thread);

// Tokens through which ThreadSanitizer learns what barriers order: one for the block, one a warp.
void* block_token();
void* warp_token(unsigned warp);

// The product that the lanes of a warp, all waiting for it, have brought operands for.
void multiply_matrices(unsigned warp);

// Shared memory, block by block.
void forget_shared_arrays();  // at the start of a grid
void begin_shared(std::size_t dynamic_bytes);
void end_shared();  // reports overruns

}  // namespace simt
