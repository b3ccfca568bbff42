// Four doubles in an AVX2 register; the operations are those of PortableVec.
#pragma once

#include <cstdint>

#include "core/simd/simd_x86.h"

#define LWFM_AVX2 __attribute__((target("avx2")))

namespace lwfm {

struct Avx2Vec {
  static constexpr int kWidth = 4;
  struct Mask {
    __m256d lanes;
  };
  __m256d lanes;

  LWFM_AVX2 static LWFM_INLINE Avx2Vec load(const double* from) { return {_mm256_loadu_pd(from)}; }
  LWFM_AVX2 static LWFM_INLINE Avx2Vec load(const float* from) {
    return {_mm256_cvtps_pd(_mm_loadu_ps(from))};
  }
  LWFM_AVX2 static LWFM_INLINE Avx2Vec load_first(const double* from, int count) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return {_mm256_maskload_pd(from, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane))};
  }
  LWFM_AVX2 static LWFM_INLINE Avx2Vec load_first(const float* from, int count) {
    const __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    return {_mm256_cvtps_pd(_mm_maskload_ps(from, _mm_cmpgt_epi32(_mm_set1_epi32(count), lane)))};
  }
  LWFM_AVX2 static LWFM_INLINE Avx2Vec set(double value) { return {_mm256_set1_pd(value)}; }
  LWFM_AVX2 static LWFM_INLINE Avx2Vec count_from(double first) {
    return {_mm256_setr_pd(first, first + 1, first + 2, first + 3)};
  }
  LWFM_AVX2 LWFM_INLINE void store(double* to) const { _mm256_storeu_pd(to, lanes); }
};

LWFM_AVX2 LWFM_INLINE Avx2Vec operator+(Avx2Vec a, Avx2Vec b) {
  return {_mm256_add_pd(a.lanes, b.lanes)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec operator-(Avx2Vec a, Avx2Vec b) {
  return {_mm256_sub_pd(a.lanes, b.lanes)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec operator*(Avx2Vec a, Avx2Vec b) {
  return {_mm256_mul_pd(a.lanes, b.lanes)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec min(Avx2Vec a, Avx2Vec b) {
  return {_mm256_min_pd(a.lanes, b.lanes)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec max(Avx2Vec a, Avx2Vec b) {
  return {_mm256_max_pd(a.lanes, b.lanes)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec::Mask operator<(Avx2Vec a, Avx2Vec b) {
  return {_mm256_cmp_pd(a.lanes, b.lanes, _CMP_LT_OQ)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec::Mask operator==(Avx2Vec a, Avx2Vec b) {
  return {_mm256_cmp_pd(a.lanes, b.lanes, _CMP_EQ_OQ)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec::Mask operator&(Avx2Vec::Mask a, Avx2Vec::Mask b) {
  return {_mm256_and_pd(a.lanes, b.lanes)};
}
LWFM_AVX2 LWFM_INLINE Avx2Vec select(Avx2Vec::Mask m, Avx2Vec yes, Avx2Vec no) {
  return {_mm256_blendv_pd(no.lanes, yes.lanes, m.lanes)};
}
LWFM_AVX2 LWFM_INLINE std::uint64_t bits(Avx2Vec::Mask m) {
  return static_cast<std::uint64_t>(_mm256_movemask_pd(m.lanes));
}
LWFM_AVX2 LWFM_INLINE Avx2Vec spread_min(Avx2Vec a) {
  const __m256d halves = _mm256_min_pd(a.lanes, _mm256_permute2f128_pd(a.lanes, a.lanes, 1));
  return {_mm256_min_pd(halves, _mm256_permute_pd(halves, 5))};
}
LWFM_AVX2 LWFM_INLINE double first(Avx2Vec a) { return _mm256_cvtsd_f64(a.lanes); }

// Writes a square block transposed: column k of `from` becomes row k of `to`; strides in elements.
LWFM_AVX2 LWFM_INLINE void transpose_block(const float* from, std::int64_t from_stride, float* to,
                                           std::int64_t to_stride) {
  __m256 half[8], pair[8];
  for (int k = 0; k < 4; ++k) {  // rows k and k + 4 side by side
    const float* row = from + k * from_stride;
    const __m256 low = _mm256_loadu_ps(row), high = _mm256_loadu_ps(row + 4 * from_stride);
    half[k] = _mm256_permute2f128_ps(low, high, 0x20);
    half[k + 4] = _mm256_permute2f128_ps(low, high, 0x31);
  }
  for (int k = 0; k < 8; k += 4) {
    pair[k] = _mm256_unpacklo_ps(half[k], half[k + 1]);
    pair[k + 1] = _mm256_unpackhi_ps(half[k], half[k + 1]);
    pair[k + 2] = _mm256_unpacklo_ps(half[k + 2], half[k + 3]);
    pair[k + 3] = _mm256_unpackhi_ps(half[k + 2], half[k + 3]);
  }
  for (int k = 0; k < 8; k += 4) {
    float* row = to + k * to_stride;
    _mm256_storeu_ps(row, _mm256_shuffle_ps(pair[k], pair[k + 2], 0x44));
    _mm256_storeu_ps(row + to_stride, _mm256_shuffle_ps(pair[k], pair[k + 2], 0xEE));
    _mm256_storeu_ps(row + 2 * to_stride, _mm256_shuffle_ps(pair[k + 1], pair[k + 3], 0x44));
    _mm256_storeu_ps(row + 3 * to_stride, _mm256_shuffle_ps(pair[k + 1], pair[k + 3], 0xEE));
  }
}
LWFM_AVX2 LWFM_INLINE void transpose_block(const double* from, std::int64_t from_stride, double* to,
                                           std::int64_t to_stride) {
  __m256d half[4];
  for (int k = 0; k < 2; ++k) {  // rows k and k + 2 side by side
    const double* row = from + k * from_stride;
    const __m256d low = _mm256_loadu_pd(row), high = _mm256_loadu_pd(row + 2 * from_stride);
    half[k] = _mm256_permute2f128_pd(low, high, 0x20);
    half[k + 2] = _mm256_permute2f128_pd(low, high, 0x31);
  }
  for (int k = 0; k < 4; k += 2) {
    _mm256_storeu_pd(to + k * to_stride, _mm256_unpacklo_pd(half[k], half[k + 1]));
    _mm256_storeu_pd(to + (k + 1) * to_stride, _mm256_unpackhi_pd(half[k], half[k + 1]));
  }
}

}  // namespace lwfm
