// One body of code on every instruction set.
#pragma once

#include "core/simd/lanes.h"
#include "core/simd/simd.h"
#if LWFM_X86
#include "core/simd/simd_avx2.h"
#include "core/simd/simd_avx512.h"
#endif

// For a lambda that `vectorized` runs: it has to be inlined to be compiled for an instruction set.
#define LWFM_INLINE_LAMBDA __attribute__((always_inline))

namespace lwfm {

// How many bytes a vector has, as the type of an argument.
template <int kBytes>
struct VectorBytes {
  static constexpr int value = kBytes;
};

#if LWFM_X86
template <class Body>
LWFM_AVX2 void run_avx2(const Body& body) {
  body(VectorBytes<kNarrow>{});
}

template <class Body>
LWFM_AVX512 void run_avx512(const Body& body) {
  body(VectorBytes<kWide>{});
}
#endif

// Runs body(VectorBytes), compiled for the best instruction set of this processor; what it calls
// has to be LWFM_INLINE to be so too.
template <class Body>
void vectorized(const Body& body, SimdLevel level = simd_level()) {
#if LWFM_X86
  if (level >= SimdLevel::avx512) return run_avx512(body);
  if (level >= SimdLevel::avx2) return run_avx2(body);
#endif
  (void)level;
  body(VectorBytes<kNarrow>{});
}

}  // namespace lwfm
