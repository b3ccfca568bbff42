// The vector kernels on every instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/assignment/levels.h"
#include "core/transport/small_basis.h"

namespace lwfm {

namespace portable {
#define LWFM_TARGET
#include "core/transport/small_pivot_kernel.h"
// Needs SmallPivot.
#include "core/transport/pricing_kernel.h"
#undef LWFM_TARGET
}  // namespace portable

#if LWFM_X86
namespace avx2 {
#define LWFM_TARGET LWFM_AVX2
#include "core/transport/small_pivot_kernel.h"
// Needs SmallPivot.
#include "core/transport/pricing_kernel.h"
#undef LWFM_TARGET
}  // namespace avx2

namespace avx512 {
#define LWFM_TARGET LWFM_AVX512
#include "core/transport/small_pivot_kernel.h"
// Needs SmallPivot.
#include "core/transport/pricing_kernel.h"
#undef LWFM_TARGET
}  // namespace avx512
#endif

}  // namespace lwfm
