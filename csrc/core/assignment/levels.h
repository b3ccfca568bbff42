// The vector kernels on every instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/prepare.h"
#include "core/assignment/small_state.h"
#include "core/simd/simd.h"
#include "core/simd/simd_portable.h"
#if LWFM_X86
#include "core/simd/simd_avx2.h"
#include "core/simd/simd_avx512.h"
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
#include "core/assignment/scan_kernel.h"
#include "core/assignment/small_kernel.h"
#undef LWFM_TARGET
}  // namespace portable

#if LWFM_X86
namespace avx2 {
using Vec = Avx2Vec;
#define LWFM_TARGET LWFM_AVX2
#include "core/assignment/scan_kernel.h"
#include "core/assignment/small_kernel.h"
#undef LWFM_TARGET
}  // namespace avx2

namespace avx512 {
using Vec = Avx512Vec;
#define LWFM_TARGET LWFM_AVX512
#include "core/assignment/scan_kernel.h"
#include "core/assignment/small_kernel.h"
#undef LWFM_TARGET
}  // namespace avx512
#endif

}  // namespace lwfm
