// One body of code on every instruction set.
#pragma once

#include "simd.h"
#if LWFM_X86
#include "simd_avx2.h"
#endif

// For a lambda that `vectorised` runs: it has to be inlined to be compiled for an instruction set.
#define LWFM_INLINE_LAMBDA __attribute__((always_inline))

namespace lwfm {

#if LWFM_X86
template <class Body>
LWFM_AVX2 void run_avx2(const Body& body) {
  body();
}
#endif

// Runs body(), compiled for the best instruction set of this processor; what it calls has to be
// LWFM_INLINE to be so too.
template <class Body>
void vectorised(const Body& body, SimdLevel level = simd_level()) {
#if LWFM_X86
  if (level >= SimdLevel::avx2) return run_avx2(body);
#endif
  (void)level;
  body();
}

}  // namespace lwfm
