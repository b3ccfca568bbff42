// The schedules under which a test runs its kernels.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace simt {

// Calls test() under each schedule. ThreadSanitizer sees what is ordered and what is not under any
// one of them, and takes a millisecond for every thread: there, under the random one only.
template <class Test>
void for_each_schedule(const Test& test, std::uint64_t seed = 1) {
#ifndef __SANITIZE_THREAD__
  configure({Schedule::ascending, seed});
  test();
  configure({Schedule::descending, seed});
  test();
#endif
  configure({Schedule::random, seed});
  test();
}

}  // namespace simt
