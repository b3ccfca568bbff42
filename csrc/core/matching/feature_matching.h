// Cosines of matched positions from their features, and the derivative of the mean of the largest:
// only the P matched pairs of P x M are ever compared, and only `top_k` of them have a gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/matching/pixel_matching.h"
#include "core/simd/rows.h"

namespace lwfm {

constexpr double kSmallestNorm = 1e-8;  // as COSINE_EPS in lwfm/ops/_expressions.py

// Features [positions, channels] of one image, contiguous, and the inverse of their norms.
template <class T>
struct Features {
  const T* values;
  const T* inverse_norms;
  std::int64_t channels;

  const T* at(std::int64_t i) const { return values + i * channels; }
};

// 1 / max(|x|, eps) of each row of x [rows, channels]; 0 for a zero vector.
template <int kBytes, class T>
LWFM_INLINE void inverse_norms(const T* x, std::int64_t rows, std::int64_t channels, T* inverse) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const T square = inner_product<kBytes>(x + i * channels, x + i * channels, channels);
    const T norm = std::max(std::sqrt(square), static_cast<T>(kSmallestNorm));
    inverse[i] = square <= T{0} ? T{0} : T{1} / norm;
  }
}

// Writes the cosine of every matched row, 0 for a row without a match.
template <int kBytes, class T>
LWFM_INLINE void matched_cosines(const Features<T>& support, const Features<T>& query,
                                 const std::int64_t* assignment, std::int64_t rows, T* cosines) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t j = assignment[i];
    cosines[i] = j < 0 ? T{0}
                       : inner_product<kBytes>(support.at(i), query.at(j), support.channels) *
                             (support.inverse_norms[i] * query.inverse_norms[j]);
  }
}

// What one pair contributes to the gradient of the features of one of its images.
template <class T>
struct FeatureGradient {
  T* values;  // [positions, channels]
  T* along;   // [positions]: the multiples of the features themselves that are to be taken off
};

// Adds the contribution of a pair through its selected matches to the gradient of `own`, one side
// of it; `other` is the other.
template <int kBytes, class T>
LWFM_INLINE void matched_cosines_backward(const MatchingWorkspace<T>& workspace,
                                          bool own_is_support, const Features<T>& own,
                                          const Features<T>& other, const std::int64_t* assignment,
                                          std::int64_t top_k, T share,
                                          const FeatureGradient<T>& to) {
  for (std::int64_t k = 0; k < top_k; ++k) {
    const auto& match = workspace.matches[static_cast<std::size_t>(k)];
    const std::int64_t column = assignment[match.row];
    const std::int64_t i = own_is_support ? match.row : column;
    const std::int64_t j = own_is_support ? column : match.row;
    const T inverse = own.inverse_norms[i];
    add_multiple<kBytes>(other.at(j), share * inverse * other.inverse_norms[j], own.channels,
                         to.values + i * own.channels);
    // A norm below the smallest counts as that one, whatever it is.
    if (inverse < T{1} / static_cast<T>(kSmallestNorm)) {
      to.along[i] += share * match.cosine * inverse * inverse;
    }
  }
}

// Takes off what the norms contribute, once all pairs of an image have been added.
template <int kBytes, class T>
LWFM_INLINE void finish_gradient(const Features<T>& own, std::int64_t rows,
                                 const FeatureGradient<T>& to) {
  for (std::int64_t i = 0; i < rows; ++i) {
    if (to.along[i] != T{0}) {
      add_multiple<kBytes>(own.at(i), -to.along[i], own.channels, to.values + i * own.channels);
    }
  }
}

}  // namespace lwfm
