// What the operators on features hand to their kernels; the letters of core/ and of
// pair_arguments.h. Everything is contiguous but blocks.
#pragma once

#include <cstdint>

#include "pair_arguments.h"

namespace lwfm {

// Features [images, positions, channels] of one side and their inverse norms [images,
// positions].
template <class T>
struct FeatureSide {
  const T* values;
  const T* inverse_norms;
  int positions;
};

// Which images a pair compares: all pairs [Q, S], or image p of both sides.
struct ImagesOfPair {
  bool paired;
  std::int64_t S;

  LWFM_HOST_DEVICE std::int64_t support(std::int64_t pair) const {
    return paired ? pair : pair % S;
  }
  LWFM_HOST_DEVICE std::int64_t query(std::int64_t pair) const { return paired ? pair : pair / S; }
};

template <class T>
struct FeatureMatchingArguments {
  PairShape shape;
  int top_k;
  PairScaledBlocks<T> cosines;
  ImagesOfPair images;
  std::int64_t channels;
  FeatureSide<T> support;
  FeatureSide<T> query;
  T* similarity;             // [count]
  std::int64_t* assignment;  // [count, P]
  T* matched;  // [count, P]: the cosines of the assigned positions, 0 where there is none
};

template <class T>
struct FeatureMatchingGradientArguments {
  PairShape shape;
  int top_k;
  ImagesOfPair images;
  std::int64_t S, Q, channels;
  FeatureSide<T> support;
  FeatureSide<T> query;
  const T* grad;                   // [count]
  const std::int64_t* assignment;  // [count, P]
  const T* matched;                // [count, P]
  T* shares;                       // [count, P], scratch: what each row gets of the gradient
  int* row_of_column;              // [count, M], scratch: the row with a share, or -1
  T* support_grad;                 // [S, P, channels]
  T* query_grad;                   // [Q, M, channels]
};

}  // namespace lwfm
