// Which vector instructions are used. The same source, core/assignment/small_kernel.h for one, is
// compiled once for each level below; the choice is made at run time, so one build runs everywhere.
#pragma once

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define LWFM_X86 1
#else
#define LWFM_X86 0
#endif

#define LWFM_INLINE inline __attribute__((always_inline))

namespace lwfm {

enum class SimdLevel { portable = 0, avx2 = 1, avx512 = 2 };

inline const char* name_of(SimdLevel level) {
  constexpr const char* kNames[] = {"portable", "avx2", "avx512"};
  return kNames[static_cast<int>(level)];
}

// The best level of this processor.
inline SimdLevel supported_level() {
#if LWFM_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return SimdLevel::avx512;
  }
  if (__builtin_cpu_supports("avx2")) return SimdLevel::avx2;
#endif
  return SimdLevel::portable;
}

// The level in use: the best one, or a lower one named by the environment variable LWFM_SIMD. Read
// once.
inline SimdLevel simd_level() {
  static const SimdLevel level = [] {
    const SimdLevel best = supported_level();
    const char* wanted = std::getenv("LWFM_SIMD");
    if (wanted == nullptr) return best;
    for (const SimdLevel lower : {SimdLevel::portable, SimdLevel::avx2}) {
      if (lower < best && std::strcmp(wanted, name_of(lower)) == 0) return lower;
    }
    return best;
  }();
  return level;
}

}  // namespace lwfm
