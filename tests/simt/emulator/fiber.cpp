#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <new>

#include "sanitizers.h"

#if !SIMT_UCONTEXT
// The registers that a call keeps, by the System V convention, go to the old stack and come from
// the new one.
extern "C" void simt_switch_stack(void** save, void* to);
asm(R"(.text
.globl simt_switch_stack
.type simt_switch_stack,@function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack,.-simt_switch_stack
.section .note.GNU-stack,"",@progbits
.text
)");
#endif

namespace simt {

namespace {
constexpr std::size_t kGuard = 4096;
constexpr int kProtection = PROT_READ | PROT_WRITE;
constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
}  // namespace

void Fiber::adopt() {
  if (watches_threads()) identity_ = __tsan_get_current_fiber();
  if (!watches_memory() || stack_ != nullptr) return;
  pthread_attr_t attributes;
  void* bottom = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &size_);
  pthread_attr_destroy(&attributes);
  stack_ = static_cast<char*>(bottom);
}

void Fiber::allocate() {
  size_ = watches_memory() ? 128 << 10 : 64 << 10;  // AddressSanitizer spaces variables out
  void* const memory = mmap(nullptr, size_ + kGuard, kProtection, kPrivate, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuard, PROT_NONE);
  stack_ = static_cast<char*>(memory) + kGuard;
}

// Forgets what the sanitizers remember of the last user of this stack.
void Fiber::renew() {
  permit(stack_, size_);
  if (!watches_threads()) return;
  mmap(stack_, size_, kProtection, kPrivate | MAP_FIXED, -1, 0);
  identity_ = __tsan_create_fiber(0);
}

void Fiber::prepare(Entry entry) {
  if (stack_ == nullptr) allocate();
  renew();
  fake_stack_ = nullptr;
#if SIMT_UCONTEXT
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = size_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  void** top = reinterpret_cast<void**>(stack_ + size_);
  *--top = nullptr;  // where the entry would return to; also aligns the stack as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  stack_pointer_ = top;
#endif
}

void Fiber::arrived() {
  if (watches_memory()) __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
}

void Fiber::switch_to(Fiber& from, Fiber& to, bool for_good) {
  // Flag 1: a switch orders nothing; only barriers and fences do.
  if (watches_threads()) __tsan_switch_to_fiber(to.identity_, 1);
  if (watches_memory()) {
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack_, to.stack_, to.size_);
  }
#if SIMT_UCONTEXT
  swapcontext(&from.context_, &to.context_);
#else
  simt_switch_stack(&from.stack_pointer_, to.stack_pointer_);
#endif
  from.arrived();
}

void* Fiber::release_identity() {
  void* const identity = identity_;
  identity_ = nullptr;
  return identity;
}

}  // namespace simt
