// Vectors of the compiler (GCC and clang), for arithmetic that is plain enough for it: the same
// source is compiled for every instruction set, by inlining it into a function with that set's
// attribute. 32 bytes on all of them, so every one sums in the same order and gives the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace lwfm {

template <class T>
struct LaneTypes;

template <>
struct LaneTypes<float> {
  using Vector = float __attribute__((vector_size(32)));
  using Anywhere = float __attribute__((vector_size(32), aligned(4), may_alias));
  using Integers = std::int32_t __attribute__((vector_size(32)));
};

template <>
struct LaneTypes<double> {
  using Vector = double __attribute__((vector_size(32)));
  using Anywhere = double __attribute__((vector_size(32), aligned(8), may_alias));
  using Integers = std::int64_t __attribute__((vector_size(32)));
};

template <class T>
using Lanes = typename LaneTypes<T>::Vector;

// A vector that stands among numbers, at any address.
template <class T>
using LanesAnywhere = typename LaneTypes<T>::Anywhere;

template <class T>
constexpr int kLanes = 32 / static_cast<int>(sizeof(T));

// The length of a row of `count` numbers padded to whole vectors.
template <class T>
constexpr std::int64_t padded(std::int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T>
LWFM_INLINE void load(const T* from, Lanes<T>& to) {
  std::memcpy(&to, from, sizeof to);
}

template <class T>
LWFM_INLINE void store(const Lanes<T>& from, T* to) {
  std::memcpy(to, &from, sizeof from);
}

template <class T>
LWFM_INLINE T sum_of_lanes(const Lanes<T>& x) {
  T sum = x[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) sum += x[lane];
  return sum;
}

template <class T>
struct Exponential;

// Cody and Waite's reduction x = n ln 2 + r with |r| <= ln 2 / 2; coefficients of Cephes (S.
// Moshier).
template <>
struct Exponential<float> {
  static constexpr float kLowest = -87.0f, kRound = 12582912.0f;  // 1.5 * 2^23
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr std::int32_t kBias = 127, kMantissa = 23;

  static LWFM_INLINE void of_remainder(const Lanes<float>& r, Lanes<float>& value) {
    Lanes<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    value = p * (r * r) + r + 1.0f;
  }
};

template <>
struct Exponential<double> {
  static constexpr double kLowest = -708.0, kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93145751953125e-1, kLn2Low = 1.42860682030941723212e-6;
  static constexpr std::int64_t kBias = 1023, kMantissa = 52;

  static LWFM_INLINE void of_remainder(const Lanes<double>& r, Lanes<double>& value) {
    const Lanes<double> square = r * r;
    Lanes<double> p = square * 1.26177193074810590878e-4 + 3.02994407707441961300e-2;
    p = (p * square + 9.99999999999999999910e-1) * r;
    Lanes<double> q = square * 3.00198505138664455042e-6 + 2.52448340349684104192e-3;
    q = (q * square + 2.27265548208155028766e-1) * square + 2.0;
    value = 1.0 + 2.0 * (p / (q - p));
  }
};

// x = exp(x) for x <= 0, to about one unit in the last place; below exp(kLowest) that value
// instead.
template <class T>
LWFM_INLINE void exponentiate(Lanes<T>& x) {
  using E = Exponential<T>;
  using Integers = typename LaneTypes<T>::Integers;
  x = x < E::kLowest ? x - x + E::kLowest : x;
  const Lanes<T> shifted = x * static_cast<T>(1.44269504088896340736) + E::kRound;
  const Lanes<T> n = shifted - E::kRound;
  Lanes<T> value;
  E::of_remainder(x - n * E::kLn2High - n * E::kLn2Low, value);
  Integers bits;  // n stands in the lowest bits of the shifted number
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + E::kBias) << E::kMantissa;
  Lanes<T> power;
  std::memcpy(&power, &bits, sizeof power);
  x = value * power;
}

}  // namespace lwfm
