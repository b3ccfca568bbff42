// The vector kernels on every instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cost_matrix.h"
#include "limits.h"
#include "prepare.h"
#include "simd.h"
#include "simd_portable.h"
#include "small_state.h"
#if LWFM_X86
#include "simd_avx2.h"
#include "simd_avx512.h"
#endif

namespace lwfm {

// The two smallest reduced costs of a row, and the first column of the smallest.
struct TwoSmallest {
  double first;
  double second;
  double first_index;
};

namespace portable {
using Vec = PortableVec<4>;
#define LWFM_TARGET
#include "scan_kernel.h"
#include "small_kernel.h"
#undef LWFM_TARGET
}  // namespace portable

#if LWFM_X86
namespace avx2 {
using Vec = Avx2Vec;
#define LWFM_TARGET LWFM_AVX2
#include "scan_kernel.h"
#include "small_kernel.h"
#undef LWFM_TARGET
}  // namespace avx2

namespace avx512 {
using Vec = Avx512Vec;
#define LWFM_TARGET LWFM_AVX512
#include "scan_kernel.h"
#include "small_kernel.h"
#undef LWFM_TARGET
}  // namespace avx512
#endif

}  // namespace lwfm
