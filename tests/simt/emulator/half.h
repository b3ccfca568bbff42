// float16 and bfloat16 as CUDA has them: stored in 16 bits, computed with in float32, rounded to
// nearest even.
#pragma once

#include <cmath>
#include <cstdint>

#include "collectives.h"

struct __half {
  std::uint16_t bits;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

namespace simt {

// The 11 significant bits of float16 end at 2^-24 (subnormals) or at 2^-10 of the leading bit.
inline std::uint16_t half_bits(float x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (std::isnan(size)) return 0x7fff;
  if (size >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00);
  int exponent;
  std::frexp(size, &exponent);
  const int last = size == 0.0f || exponent < -13 ? -24 : exponent - 11;
  // nearbyint rounds to even; a carry into the next power of two is a carry into the exponent.
  const auto count = static_cast<int>(std::nearbyint(std::ldexp(size, -last)));
  const int biased = count < 1024 ? 0 : last + 25;
  return static_cast<std::uint16_t>(sign |
                                    ((biased << 10) + (count < 1024 ? count : count - 1024)));
}

inline float half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  float size = std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) size = mantissa == 0 ? HUGE_VALF : NAN;
  if (exponent > 0 && exponent < 31) {
    size = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -size : size;
}

inline std::uint16_t bfloat_bits(float x) {
  if (std::isnan(x)) return 0x7fff;
  const auto word = static_cast<std::uint32_t>(to_bits(x));
  return static_cast<std::uint16_t>((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

inline float bfloat_value(std::uint16_t bits) {
  return from_bits<float>(static_cast<std::uint64_t>(bits) << 16);
}

}  // namespace simt

inline __half __float2half_rn(float x) { return {simt::half_bits(x)}; }
inline __half __float2half(float x) { return {simt::half_bits(x)}; }
inline float __half2float(__half x) { return simt::half_value(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {simt::bfloat_bits(x)}; }
inline __nv_bfloat16 __float2bfloat16(float x) { return {simt::bfloat_bits(x)}; }
inline float __bfloat162float(__nv_bfloat16 x) { return simt::bfloat_value(x.bits); }

inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 x) {
  return {__bfloat162float(x.x), __bfloat162float(x.y)};
}
