// The hooks of AddressSanitizer and ThreadSanitizer, if the program is linked with one of them: the
// runtime itself is compiled without, so that only kernels and tests are instrumented.
#pragma once

#include <cstddef>

extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* token);
__attribute__((weak)) void __tsan_release(void* token);
__attribute__((weak)) void AnnotateIgnoreWritesBegin(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesEnd(const char* file, int line);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom,
                                                          std::size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom,
                                                           std::size_t* size);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void* begin,
                                                       std::size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* begin,
                                                         std::size_t size);
}

namespace simt {

inline bool watches_threads() { return __tsan_create_fiber != nullptr; }
inline bool watches_memory() { return __asan_poison_memory_region != nullptr; }

// What happened before a release(token) is ordered before what follows an acquire(token).
inline void acquire(void* token) {
  if (__tsan_acquire != nullptr) __tsan_acquire(token);
}
inline void release(void* token) {
  if (__tsan_release != nullptr) __tsan_release(token);
}

inline void forbid(void* begin, std::size_t size) {
  if (watches_memory()) __asan_poison_memory_region(begin, size);
}
inline void permit(void* begin, std::size_t size) {
  if (watches_memory()) __asan_unpoison_memory_region(begin, size);
}

}  // namespace simt
