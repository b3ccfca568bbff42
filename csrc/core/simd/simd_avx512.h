// Eight doubles in an AVX-512 register; the operations are those of PortableVec.
#pragma once

#include <cstdint>

#include "core/simd/simd_x86.h"

#define LWFM_AVX512 __attribute__((target("avx512f,avx512vl,avx512dq")))

namespace lwfm {

struct Avx512Vec {
  static constexpr int kWidth = 8;
  struct Mask {
    __mmask8 lanes;
  };
  __m512d lanes;

  LWFM_AVX512 static LWFM_INLINE Avx512Vec load(const double* from) {
    return {_mm512_loadu_pd(from)};
  }
  LWFM_AVX512 static LWFM_INLINE Avx512Vec load(const float* from) {
    return {_mm512_cvtps_pd(_mm256_loadu_ps(from))};
  }
  LWFM_AVX512 static LWFM_INLINE Avx512Vec load_first(const double* from, int count) {
    return {_mm512_maskz_loadu_pd(first_lanes(count), from)};
  }
  LWFM_AVX512 static LWFM_INLINE Avx512Vec load_first(const float* from, int count) {
    return {_mm512_cvtps_pd(_mm256_maskz_loadu_ps(first_lanes(count), from))};
  }
  LWFM_AVX512 static LWFM_INLINE __mmask8 first_lanes(int count) {
    return static_cast<__mmask8>(count <= 0 ? 0 : (1U << count) - 1U);
  }
  LWFM_AVX512 static LWFM_INLINE Avx512Vec set(double value) { return {_mm512_set1_pd(value)}; }
  LWFM_AVX512 static LWFM_INLINE Avx512Vec count_from(double first) {
    return {_mm512_setr_pd(first, first + 1, first + 2, first + 3, first + 4, first + 5, first + 6,
                           first + 7)};
  }
  LWFM_AVX512 LWFM_INLINE void store(double* to) const { _mm512_storeu_pd(to, lanes); }
};

LWFM_AVX512 LWFM_INLINE Avx512Vec operator+(Avx512Vec a, Avx512Vec b) {
  return {_mm512_add_pd(a.lanes, b.lanes)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec operator-(Avx512Vec a, Avx512Vec b) {
  return {_mm512_sub_pd(a.lanes, b.lanes)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec operator*(Avx512Vec a, Avx512Vec b) {
  return {_mm512_mul_pd(a.lanes, b.lanes)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec min(Avx512Vec a, Avx512Vec b) {
  return {_mm512_min_pd(a.lanes, b.lanes)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec max(Avx512Vec a, Avx512Vec b) {
  return {_mm512_max_pd(a.lanes, b.lanes)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec::Mask operator<(Avx512Vec a, Avx512Vec b) {
  return {_mm512_cmp_pd_mask(a.lanes, b.lanes, _CMP_LT_OQ)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec::Mask operator==(Avx512Vec a, Avx512Vec b) {
  return {_mm512_cmp_pd_mask(a.lanes, b.lanes, _CMP_EQ_OQ)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec::Mask operator&(Avx512Vec::Mask a, Avx512Vec::Mask b) {
  return {static_cast<__mmask8>(a.lanes & b.lanes)};
}
LWFM_AVX512 LWFM_INLINE Avx512Vec select(Avx512Vec::Mask m, Avx512Vec yes, Avx512Vec no) {
  return {_mm512_mask_blend_pd(m.lanes, no.lanes, yes.lanes)};
}
LWFM_AVX512 LWFM_INLINE std::uint64_t bits(Avx512Vec::Mask m) { return m.lanes; }
LWFM_AVX512 LWFM_INLINE Avx512Vec spread_min(Avx512Vec a) {
  const __m512d halves = _mm512_min_pd(a.lanes, _mm512_shuffle_f64x2(a.lanes, a.lanes, 0x4E));
  const __m512d quarters = _mm512_min_pd(halves, _mm512_shuffle_f64x2(halves, halves, 0xB1));
  return {_mm512_min_pd(quarters, _mm512_permute_pd(quarters, 0x55))};
}
LWFM_AVX512 LWFM_INLINE double first(Avx512Vec a) { return _mm512_cvtsd_f64(a.lanes); }

}  // namespace lwfm
