// Warp collectives: lanes gather, the last one computes everybody's result.
#include <algorithm>
#include <cstdio>

#include "machine.h"
#include "sanitizers.h"

namespace simt {

namespace {

std::string hexadecimal(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

std::string describe(const Thread& thread) {
  return std::string(name_of(thread.operation)) + " at " + describe(thread.place);
}

void require_same_call(const Thread& self, const Thread& other) {
  if (other.mask == self.mask && other.operation == self.operation &&
      same_place(other.place, self.place)) {
    return;
  }
  fail("divergent collective: " + describe(self) + " with mask " + hexadecimal(self.mask) +
       ", while lane " + std::to_string(other.position.lane) + " waits in " + describe(other) +
       " with mask " + hexadecimal(other.mask));
}

// Every lane of a mask must come to the same call. One that waits elsewhere gives it away on
// arrival; all are looked at when the last one comes.
void require_agreement(const Thread& self, const Warp& warp) {
  const std::uint32_t own = 1u << self.position.lane, others = warp.waiting & self.mask;
  if ((self.mask & own) == 0) {
    fail(describe(self) + ": calling lane is not in its own mask " + hexadecimal(self.mask));
  }
  if ((self.mask & warp.absent) != 0) {
    fail(describe(self) + ": mask " + hexadecimal(self.mask) +
         " names lanes that have exited or never were");
  }
  const bool last = (others | own) == self.mask;
  for (Lanes lanes(last ? others : others & -others); lanes; ++lanes) {
    require_same_call(self, machine.thread(self.position.warp, *lanes));
  }
}

std::uint32_t combine(Collective operation, std::uint32_t a, std::uint32_t b) {
  const auto signed_a = static_cast<std::int32_t>(a), signed_b = static_cast<std::int32_t>(b);
  switch (operation) {
    case Collective::add:
      return a + b;
    case Collective::min_unsigned:
      return std::min(a, b);
    case Collective::max_unsigned:
      return std::max(a, b);
    case Collective::min_signed:
      return static_cast<std::uint32_t>(std::min(signed_a, signed_b));
    case Collective::max_signed:
      return static_cast<std::uint32_t>(std::max(signed_a, signed_b));
    case Collective::bit_and:
      return a & b;
    case Collective::bit_or:
      return a | b;
    default:
      return a ^ b;
  }
}

std::uint32_t lanes_with(unsigned warp, unsigned mask, std::uint64_t value) {
  std::uint32_t equal = 0;
  for (Lanes lanes(mask); lanes; ++lanes) {
    if (machine.thread(warp, *lanes).value == value) equal |= 1u << *lanes;
  }
  return equal;
}

void require_one_address(unsigned warp, unsigned mask) {
  const Thread& first = machine.thread(warp, *Lanes(mask));
  if (lanes_with(warp, mask, first.value) == mask) return;
  fail(describe(first) + ": lanes come with different addresses");
}

// What every lane of the mask gets alike.
std::uint64_t common_result(Collective operation, unsigned warp, unsigned mask) {
  const std::uint32_t set = mask & ~lanes_with(warp, mask, 0);
  switch (operation) {
    case Collective::sync:
    case Collective::multiply_matrices:
      return 0;
    case Collective::load_matrix:
    case Collective::store_matrix:
      require_one_address(warp, mask);
      return 0;
    case Collective::ballot:
      return set;
    case Collective::any:
      return set != 0;
    case Collective::all:
      return set == mask;
    default:
      break;
  }
  Lanes lanes(mask);
  auto result = static_cast<std::uint32_t>(machine.thread(warp, *lanes).value);
  for (++lanes; lanes; ++lanes) {
    const auto value = static_cast<std::uint32_t>(machine.thread(warp, *lanes).value);
    result = combine(operation, result, value);
  }
  return result;
}

std::uint64_t shuffled(const Thread& thread) {
  if (thread.source < 0 || thread.source > 31 || (thread.mask >> thread.source & 1) == 0) {
    fail(describe(thread) + ": lane " + std::to_string(thread.position.lane) + " reads lane " +
         std::to_string(thread.source) + ", which is not in mask " + hexadecimal(thread.mask));
  }
  return machine.thread(thread.position.warp, static_cast<unsigned>(thread.source)).value;
}

void release_lanes(Collective operation, unsigned warp, unsigned mask) {
  std::uint64_t common = 0;
  if (operation == Collective::multiply_matrices) multiply_matrices(warp);
  const bool own = operation == Collective::shuffle || operation == Collective::match_any;
  if (!own) common = common_result(operation, warp, mask);
  for (Lanes lanes(mask); lanes; ++lanes) {
    Thread& thread = machine.thread(warp, *lanes);
    thread.result = operation == Collective::shuffle     ? shuffled(thread)
                    : operation == Collective::match_any ? lanes_with(warp, mask, thread.value)
                                                         : common;
  }
  for (Lanes lanes(mask); lanes; ++lanes) make_runnable(machine.thread(warp, *lanes));
  machine.warps[warp].waiting &= ~mask;
}

}  // namespace

const char* name_of(Collective operation) {
  constexpr const char* kNames[] = {"__syncwarp",        "__shfl_sync",       "__ballot_sync",
                                    "__any_sync",        "__all_sync",        "__reduce_add_sync",
                                    "__reduce_min_sync", "__reduce_max_sync", "__reduce_min_sync",
                                    "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
                                    "__reduce_xor_sync", "__match_any_sync",  "load_matrix_sync",
                                    "store_matrix_sync", "mma_sync"};
  return kNames[static_cast<int>(operation)];
}

std::uint64_t warp_collective(Collective operation, unsigned mask, std::uint64_t value, int source,
                              Place place) {
  Thread& self = *machine.current;
  const unsigned index = self.position.warp;
  Warp& warp = machine.warps[index];
  self.operation = operation;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.place = place;
  require_agreement(self, warp);
  stop_running(self, Thread::State::in_collective);
  warp.waiting |= 1u << self.position.lane;
  // __syncwarp orders memory; shuffles, votes and reductions do not.
  if (operation == Collective::sync) release(warp_token(index));
  if ((warp.waiting & mask) == mask) release_lanes(operation, index, mask);
  after_release(self);
  if (operation == Collective::sync) acquire(warp_token(index));
  return self.result;
}

}  // namespace simt
