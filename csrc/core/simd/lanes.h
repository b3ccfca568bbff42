// Vectors of the compiler (GCC and clang), for arithmetic that is plain enough for it: the same
// source is compiled for every instruction set, by inlining it into a function with that set's
// attribute. Vectors have 32 bytes, or 64 where an instruction set has such registers; sums are
// taken so that both give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/simd/simd.h"

namespace lwfm {

constexpr int kHalf = 16, kNarrow = 32, kWide = 64;  // bytes of a vector

// Compilers take these attributes only with types that they know: one for each case.
template <class T, int kBytes>
struct LaneTypes;

template <>
struct LaneTypes<float, kHalf> {
  using Vector = float __attribute__((vector_size(kHalf)));
};

template <>
struct LaneTypes<float, kNarrow> {
  using Vector = float __attribute__((vector_size(kNarrow)));
  using Anywhere = float __attribute__((vector_size(kNarrow), aligned(sizeof(float)), may_alias));
  using Integers = std::int32_t __attribute__((vector_size(kNarrow)));
};

template <>
struct LaneTypes<float, kWide> {
  using Vector = float __attribute__((vector_size(kWide)));
  using Anywhere = float __attribute__((vector_size(kWide), aligned(sizeof(float)), may_alias));
  using Integers = std::int32_t __attribute__((vector_size(kWide)));
};

template <>
struct LaneTypes<double, kHalf> {
  using Vector = double __attribute__((vector_size(kHalf)));
};

template <>
struct LaneTypes<double, kNarrow> {
  using Vector = double __attribute__((vector_size(kNarrow)));
  using Anywhere = double __attribute__((vector_size(kNarrow), aligned(sizeof(double)), may_alias));
  using Integers = std::int64_t __attribute__((vector_size(kNarrow)));
};

template <>
struct LaneTypes<double, kWide> {
  using Vector = double __attribute__((vector_size(kWide)));
  using Anywhere = double __attribute__((vector_size(kWide), aligned(sizeof(double)), may_alias));
  using Integers = std::int64_t __attribute__((vector_size(kWide)));
};

template <class T, int kBytes = kNarrow>
using Lanes = typename LaneTypes<T, kBytes>::Vector;

// A vector at any address, without alignment.
template <class T, int kBytes = kNarrow>
using LanesAnywhere = typename LaneTypes<T, kBytes>::Anywhere;

template <class T, int kBytes = kNarrow>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));

// The length of a row of `count` numbers padded to whole vectors.
template <class T>
constexpr std::int64_t padded(std::int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T, class Vector>
LWFM_INLINE void load(const T* from, Vector& to) {
  std::memcpy(&to, from, sizeof to);
}

template <class T, class Vector>
LWFM_INLINE void store(const Vector& from, T* to) {
  std::memcpy(to, &from, sizeof from);
}

// Halves are added until one number is left: a chain of a few additions instead of one for each
// lane.
template <class T>
LWFM_INLINE T sum_of_lanes(const Lanes<T>& x) {
  Lanes<T, kHalf> sum, high;
  std::memcpy(&sum, &x, sizeof sum);
  std::memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof sum, sizeof high);
  sum += high;
  if constexpr (sizeof(T) == 4) {
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
  } else {
    return sum[0] + sum[1];
  }
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

  template <class Vector>
  static LWFM_INLINE void of_remainder(const Vector& r, Vector& value) {
    Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
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

  template <class Vector>
  static LWFM_INLINE void of_remainder(const Vector& r, Vector& value) {
    const Vector square = r * r;
    Vector p = square * 1.26177193074810590878e-4 + 3.02994407707441961300e-2;
    p = (p * square + 9.99999999999999999910e-1) * r;
    Vector q = square * 3.00198505138664455042e-6 + 2.52448340349684104192e-3;
    q = (q * square + 2.27265548208155028766e-1) * square + 2.0;
    value = 1.0 + 2.0 * (p / (q - p));
  }
};

// x = exp(x) for x <= 0, to about one unit in the last place; below exp(kLowest) that value
// instead.
template <class T, class Vector>
LWFM_INLINE void exponentiate(Vector& x) {
  using E = Exponential<T>;
  using Integers = typename LaneTypes<T, sizeof(Vector)>::Integers;
  x = x < E::kLowest ? x - x + E::kLowest : x;
  const Vector shifted = x * static_cast<T>(1.44269504088896340736) + E::kRound;
  const Vector n = shifted - E::kRound;
  Vector value;
  E::of_remainder(x - n * E::kLn2High - n * E::kLn2Low, value);
  Integers bits;  // the lowest bits of the shifted number hold n
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + E::kBias) << E::kMantissa;
  Vector power;
  std::memcpy(&power, &bits, sizeof power);
  x = value * power;
}

}  // namespace lwfm
