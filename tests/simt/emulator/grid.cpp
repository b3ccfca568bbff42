// A launch: blocks one after another, their threads as fresh fibers.
#include <cstdio>

#include "machine.h"
#include "sanitizers.h"

namespace simt {

namespace {

char grid_token[8];  // what a thread did is ordered before the host goes on

// ThreadSanitizer gives the number of a destroyed fiber to a new one, which then looks like the
// same thread: races between their blocks would be missed. So they are kept until the grid ends, or
// until ThreadSanitizer has no more numbers.
constexpr std::size_t kMostIdentities = 7000;

class Identities {
 public:
  void keep(Fiber& fiber) { kept_.push_back(fiber.release_identity()); }

  void make_room(unsigned threads) {
    if (kept_.size() + threads <= kMostIdentities) return;
    if (!warned_)
      std::fputs("simt: a large grid, races between far blocks may be missed\n", stderr);
    warned_ = true;
    destroy();
  }

  void destroy() {
    for (void* identity : kept_) __tsan_destroy_fiber(identity);
    kept_.clear();
  }

 private:
  std::vector<void*> kept_;
  bool warned_ = false;
};

Identities& identities = *new Identities;

void run_thread() {
  Thread& self = *machine.current;
  self.fiber.arrived();
  machine.body(machine.bound);
  release(grid_token);
  stop_running(self, Thread::State::exited);
  machine.warps[self.position.warp].absent |= 1u << self.position.lane;
  --machine.running;
  if (machine.barrier.arrived > 0) {
    fail("thread exits while " + std::to_string(machine.barrier.arrived) +
         " thread(s) wait in __syncthreads at " + describe(machine.barrier.place));
  }
  wait();
  __builtin_unreachable();
}

void require_valid(dim3 grid, dim3 block) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const bool valid = threads > 0 && threads <= 1024 && block.z <= 64 && grid.x > 0 && grid.y > 0 &&
                     grid.z > 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  if (valid) return;
  const auto text = [](dim3 d) {
    return std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z);
  };
  fail("invalid launch: grid " + text(grid) + " block " + text(block));
}

void prepare_threads() {
  const dim3 size = machine.block.block_size;
  while (machine.threads.size() < machine.count) machine.threads.push_back(new Thread{});
  machine.warps.assign((machine.count + 31) / 32, {0, 0, 0xffffffffu});
  for (unsigned i = 0; i < machine.count; ++i) {
    Thread& thread = *machine.threads[i];
    const uint3 index{i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.position = {index, i % 32, i / 32};
    thread.place = {"?", 0};
    thread.fiber.prepare(run_thread);
    make_runnable(thread);
    machine.warps[i / 32].absent &= ~(1u << i % 32);
  }
  machine.running = machine.count;
  machine.barrier = {};
}

void run_block(uint3 index, std::size_t shared_bytes) {
  machine.block.block = index;
  machine.warps.resize((machine.count + 31) / 32);
  begin_shared(shared_bytes);
  if (watches_threads()) identities.make_room(machine.count);
  prepare_threads();
  const unsigned first = machine.options.schedule == Schedule::ascending ? 0
                         : machine.options.schedule == Schedule::descending
                             ? machine.count - 1
                             : random_below(machine.count);
  machine.current = machine.threads[first];
  Fiber::switch_to(machine.host, machine.current->fiber, false);
  machine.current = nullptr;
  if (watches_threads()) {
    for (unsigned i = 0; i < machine.count; ++i) identities.keep(machine.threads[i]->fiber);
  }
  end_shared();
}

}  // namespace

unsigned launches() { return machine.launches; }

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const char* name, Body body,
              const void* bound) {
  ++machine.launches;
  machine.kernel = name;
  machine.body = body;
  machine.bound = bound;
  machine.current = nullptr;
  machine.failure.clear();
  require_valid(grid, block);
  machine.block = {{}, block, grid};
  machine.count = block.x * block.y * block.z;
  machine.host.adopt();
  forget_shared_arrays();
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  for (std::uint64_t b = 0; b < blocks && machine.failure.empty(); ++b) {
    const auto x = static_cast<unsigned>(b % grid.x),
               y = static_cast<unsigned>(b / grid.x % grid.y);
    run_block({x, y, static_cast<unsigned>(b / grid.x / grid.y)}, shared_bytes);
  }
  if (watches_threads()) identities.destroy();
  acquire(grid_token);
  if (!machine.failure.empty()) throw Error(std::string(name) + ": " + machine.failure);
}

}  // namespace simt
