// Who runs next, block barriers, and what is reported when nobody can run.
#include <cstdio>
#include <map>

#include "machine.h"
#include "sanitizers.h"

namespace simt {

Machine& machine = *new Machine;

void configure(const Options& options) {
  machine.options = options;
  machine.random = 0x9E3779B97F4A7C15ull * (options.seed + 1);
}

const Position& position() { return machine.current->position; }
const BlockPosition& block_position() { return machine.block; }

std::uint32_t random_below(std::uint32_t bound) {  // xorshift
  std::uint64_t& x = machine.random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return static_cast<std::uint32_t>(x >> 32) % bound;
}

std::string describe(Place place) {
  return std::string(place.file) + ":" + std::to_string(place.line);
}

namespace {

std::string describe(uint3 at) {
  return std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z);
}

void switch_to(Thread* next, bool for_good = false) {
  Thread* const self = machine.current;
  if (next == self) return;
  machine.current = next;
  Fiber::switch_to(self->fiber, next != nullptr ? next->fiber : machine.host, for_good);
}

Thread* random_thread() {
  const auto warps = static_cast<unsigned>(machine.warps.size());
  const unsigned first = random_below(warps);
  for (unsigned k = 0; k < warps; ++k) {
    const unsigned warp = (first + k) % warps;
    Lanes lanes(machine.warps[warp].runnable);
    if (!lanes) continue;
    const std::uint32_t mask = machine.warps[warp].runnable;
    for (unsigned skip = random_below(static_cast<unsigned>(__builtin_popcount(mask))); skip > 0;
         --skip) {
      ++lanes;
    }
    return &machine.thread(warp, *lanes);
  }
  return nullptr;
}

// The nearest runnable lane after `from` in the order of the schedule, around the warp; null: none.
Thread* next_in_warp(unsigned warp, unsigned from, bool ascending) {
  const std::uint32_t runnable = machine.warps[warp].runnable;
  for (unsigned k = 1; k <= 32; ++k) {
    const unsigned lane = (ascending ? from + k : from + 32 - k) % 32;
    if ((runnable >> lane & 1) != 0) return &machine.thread(warp, lane);
  }
  return nullptr;
}

// Null: none is runnable. A warp runs as far as it can before the next one has its turn, the worst
// case for a missing barrier.
Thread* next_thread() {
  if (machine.options.schedule == Schedule::random) return random_thread();
  const bool ascending = machine.options.schedule == Schedule::ascending;
  const auto warps = static_cast<unsigned>(machine.warps.size());
  const unsigned before_first = ascending ? 31 : 0;
  unsigned warp = ascending ? 0 : warps - 1, lane = before_first;
  if (machine.current != nullptr) {
    warp = machine.current->position.warp;
    lane = machine.current->position.lane;
  }
  for (unsigned k = 0; k < warps; ++k) {
    Thread* const next = next_in_warp(warp, lane, ascending);
    if (next != nullptr) return next;
    warp = (ascending ? warp + 1 : warp + warps - 1) % warps;
    lane = before_first;
  }
  return nullptr;
}

std::string state_of(const Thread& thread) {
  if (thread.state == Thread::State::exited) return "exited";
  const std::string place = " at " + describe(thread.place);
  if (thread.state == Thread::State::at_barrier) return "waiting in __syncthreads" + place;
  char mask[16];
  std::snprintf(mask, sizeof mask, "0x%08x", thread.mask);
  return std::string("waiting in ") + name_of(thread.operation) + place + " mask " + mask;
}

std::string deadlock() {
  std::map<std::string, unsigned> groups;
  for (unsigned i = 0; i < machine.count; ++i) ++groups[state_of(*machine.threads[i])];
  std::string text = "deadlock:";
  for (const auto& [state, threads] : groups) {
    text += " " + std::to_string(threads) + " thread(s) " + state + ";";
  }
  return text;
}

void open_barrier() {
  for (unsigned i = 0; i < machine.count; ++i) {
    Thread& thread = *machine.threads[i];
    if (thread.state != Thread::State::at_barrier) continue;
    thread.result = static_cast<std::uint64_t>(machine.barrier.satisfied);
    make_runnable(thread);
  }
  machine.barrier.arrived = 0;
}

}  // namespace

void fail(const std::string& message) {
  machine.failure = message;
  if (machine.current == nullptr) throw Error(std::string(machine.kernel) + ": " + message);
  machine.failure += " [block " + describe(machine.block.block) + " thread " +
                     describe(machine.current->position.thread) + "]";
  switch_to(nullptr, true);
  __builtin_unreachable();
}

void make_runnable(Thread& thread) {
  thread.state = Thread::State::runnable;
  machine.warps[thread.position.warp].runnable |= 1u << thread.position.lane;
}

void stop_running(Thread& thread, Thread::State state) {
  thread.state = state;
  machine.warps[thread.position.warp].runnable &= ~(1u << thread.position.lane);
}

void wait() {
  Thread* const next = next_thread();
  if (next == nullptr && machine.running > 0) fail(deadlock());
  switch_to(next, machine.current->state == Thread::State::exited);
}

void after_release(Thread& thread) {
  const bool anyone = machine.options.schedule == Schedule::random;
  if (thread.state != Thread::State::runnable || anyone) wait();
}

int block_barrier(Barrier kind, bool predicate, Place place) {
  Thread& self = *machine.current;
  BarrierState& barrier = machine.barrier;
  if (machine.running < machine.count) {
    fail("__syncthreads at " + describe(place) + " after " +
         std::to_string(machine.count - machine.running) + " thread(s) of the block have exited");
  }
  if (barrier.arrived == 0) barrier = {0, 0, kind, place};
  if (barrier.kind != kind || !same_place(barrier.place, place)) {
    fail("divergent barrier: __syncthreads at " + describe(place) + ", while " +
         std::to_string(barrier.arrived) + " thread(s) wait at " + describe(barrier.place));
  }
  self.place = place;
  stop_running(self, Thread::State::at_barrier);
  ++barrier.arrived;
  barrier.satisfied += predicate ? 1 : 0;
  release(block_token());
  if (barrier.arrived == machine.count) {
    const int all = static_cast<int>(machine.count);
    if (kind == Barrier::all) barrier.satisfied = barrier.satisfied == all;
    if (kind == Barrier::any) barrier.satisfied = barrier.satisfied > 0;
    open_barrier();
  }
  after_release(self);
  acquire(block_token());
  return static_cast<int>(self.result);
}

void may_switch() {
  if (machine.options.schedule == Schedule::random && random_below(4) == 0) wait();
}

void memory_fence() {
  static char token[8];
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  acquire(token);
  release(token);
  may_switch();
}

}  // namespace simt
