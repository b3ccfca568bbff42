// A stack and a place to continue from.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif

#if SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
 public:
  using Entry = void (*)();

  // Makes this the fiber of the running stack; others switch back to it.
  void adopt();

  // Gives it a fresh start: the first switch to it calls `entry`, which never returns.
  void prepare(Entry entry);

  // Leaves `from`, which is running, for `to`. `for_good`: nothing will switch back.
  static void switch_to(Fiber& from, Fiber& to, bool for_good);

  // To be called first in `entry`.
  void arrived();

  // Hands over what ThreadSanitizer knows of this fiber, to be destroyed by the caller.
  void* release_identity();

 private:
  void allocate();
  void renew();

  char* stack_ = nullptr;
  std::size_t size_ = 0;
  void* identity_ = nullptr;    // ThreadSanitizer's
  void* fake_stack_ = nullptr;  // AddressSanitizer's
#if SIMT_UCONTEXT
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace simt
