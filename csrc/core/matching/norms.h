// Factors that make correlations and cosines of inner products, from squared norms. A square that
// overflowed gives NaN, by inf * 0: 1 / inf would make a correlation of 0 of it.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/matching/constants.h"

namespace lwfm {

// 1 / sqrt(|x|^2 + eps), for the correlations of layer-wise embedding.
template <class T>
LWFM_HOST_DEVICE T correlation_scale(T square) {
  return T{1} / std::sqrt(square + static_cast<T>(kCorrelationEps)) + square * T{0};
}

// 1 / max(|x|, eps), for cosines; 0 for a zero vector, whose cosine is 0 then.
template <class T>
LWFM_HOST_DEVICE T inverse_norm(T square) {
  constexpr T kLeast = static_cast<T>(kCosineEps * kCosineEps);
  if (square <= T{0}) return T{0};
  return T{1} / std::sqrt(square < kLeast ? kLeast : square) + square * T{0};
}

// The derivative of inverse_norm.
template <class T>
LWFM_HOST_DEVICE T inverse_norm_slope(T square) {
  constexpr T kLeast = static_cast<T>(kCosineEps * kCosineEps);
  if (square < kLeast) return T{0};
  const T inverse = inverse_norm(square);
  return T{-0.5} * inverse * inverse * inverse;
}

}  // namespace lwfm
