// The weighted class means of the base term and their gradients: what core/matching/class_terms.h
// computes, with a block for each query and class. Means stay in registers; the backward pass
// writes their gradients once, from which those of the images are summed.
#pragma once

#include <cmath>

#include "feature_arguments.h"
#include "sums.cuh"

namespace lwfm {

// The images of one class. The lists are not read on the host, so whatever they say, only
// images that exist are touched; a class that lists others, or none, has no terms.
template <class T>
struct ClassOfInputs {
  const std::int64_t* images;
  std::int64_t shots;
  bool valid;

  __device__ ClassOfInputs(const ClassTermsInputs<T>& in, std::int64_t c) {
    const std::int64_t begin = in.classes.begin[c], end = in.classes.begin[c + 1];
    valid = 0 <= begin && begin < end && end <= in.S;
    images = in.classes.images + begin;
    shots = valid ? end - begin : 0;
    for (std::int64_t k = 0; valid && k < shots; ++k) {
      valid = 0 <= images[k] && images[k] < in.S;
    }
    if (!valid) shots = 0;
  }

  __device__ T share(std::int64_t positions) const {
    return T{1} / static_cast<T>(shots * positions);
  }

  // Support position n of the class: K P of them.
  __device__ std::int64_t support_row(std::int64_t n, std::int64_t P) const {
    return images[n / P] * P + n % P;
  }

  // The weight of position j of query q, summed over the shots.
  __device__ T query_weight(const ClassTermsInputs<T>& in, std::int64_t q, std::int64_t j) const {
    T sum{0};
    for (std::int64_t k = 0; k < shots; ++k) sum += in.b[(q * in.S + images[k]) * in.M + j];
    return sum * share(in.M);
  }
};

// Sums for the channels of a thread: m_s and m_q of query q and a class, from channel `first` on.
template <class T>
__device__ void class_means(const ClassTermsInputs<T>& in, std::int64_t q,
                            const ClassOfInputs<T>& of, std::int64_t first, const RowList<T>& list,
                            T (&m_s)[kSumChannels], T (&m_q)[kSumChannels]) {
  const std::int64_t C = in.C;
  add_rows(
      in.support, first, C, of.shots * in.P,
      [&](std::int64_t n) -> WeightedRow<T> {
        const std::int64_t row = of.support_row(n, in.P);
        return {row * C, in.a[q * in.S * in.P + row] * of.share(in.P)};
      },
      list, m_s);
  add_rows(
      in.query, first, C, in.M,
      [&](std::int64_t j) -> WeightedRow<T> {
        return {(q * in.M + j) * C, of.query_weight(in, q, j)};
      },
      list, m_q);
}

template <class T>
__global__ void __launch_bounds__(kSumThreads, 1) class_terms(ClassTermsArguments<T> arguments) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  LWFM_SHARED(T, parts, kSumThreads / kWarp);
  const RowList<T> list{offsets, weights};
  const ClassTermsInputs<T>& in = arguments.in;
  const std::int64_t way = in.classes.way;
  for (std::int64_t at = blockIdx.x; at < in.Q * way; at += gridDim.x) {
    const ClassOfInputs<T> of(in, at % way);
    T inner{0}, square_s{0}, square_q{0};
    for (std::int64_t first = 0; first < in.C; first += kSumWidth) {
      T m_s[kSumChannels] = {}, m_q[kSumChannels] = {};
      class_means(in, at / way, of, first, list, m_s, m_q);
      for (int k = 0; k < kSumChannels; ++k) {
        inner += m_s[k] * m_q[k];
        square_s += m_s[k] * m_s[k];
        square_q += m_q[k] * m_q[k];
      }
    }
    inner = block_sum(inner, parts);
    square_s = block_sum(square_s, parts);
    square_q = block_sum(square_q, parts);
    if (threadIdx.x != 0) continue;
    const T none = static_cast<T>(NAN);
    arguments.inner[at] = of.valid ? inner : none;
    arguments.square_s[at] = of.valid ? square_s : none;
    arguments.square_q[at] = of.valid ? square_q : none;
  }
}

// features [Q, C]: the query's means averaged over the classes, a block for each query.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1)
    class_features(ClassTermsInputs<T> in, T* features) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  const RowList<T> list{offsets, weights};
  for (std::int64_t q = blockIdx.x; q < in.Q; q += gridDim.x) {
    sum_rows(
        in.query, in.C, in.M,
        [&](std::int64_t j) -> WeightedRow<T> {
          T weight{0};
          for (std::int64_t c = 0; c < in.classes.way; ++c) {
            weight += ClassOfInputs<T>(in, c).query_weight(in, q, j);
          }
          return {(q * in.M + j) * in.C, weight / static_cast<T>(in.classes.way)};
        },
        list, [&](std::int64_t c, T sum) { features[q * in.C + c] = sum; });
  }
}

// The gradients of m_s and m_q of query q and a class, [C] each.
template <class T>
struct MeanGradients {
  T *m_s, *m_q;

  __device__ MeanGradients(const ClassTermsGradientArguments<T>& arguments, std::int64_t at)
      : m_s(arguments.m_s_grad + at * arguments.in.C),
        m_q(arguments.m_q_grad + at * arguments.in.C) {}
};

template <class T>
__device__ void write_mean_gradients(const ClassTermsGradientArguments<T>& arguments,
                                     std::int64_t at, const ClassOfInputs<T>& of,
                                     const RowList<T>& list, const MeanGradients<T>& to) {
  const ClassTermsInputs<T>& in = arguments.in;
  const std::int64_t way = in.classes.way, q = at / way, C = in.C;
  for (std::int64_t first = 0; first < C; first += kSumWidth) {
    T m_s[kSumChannels] = {}, m_q[kSumChannels] = {};
    class_means(in, q, of, first, list, m_s, m_q);
    for (int k = 0; k < kSumChannels; ++k) {
      const std::int64_t c = first + threadIdx.x + k * kSumThreads;
      if (c >= C) continue;
      to.m_s[c] = arguments.inner[at] * m_q[k] + 2 * arguments.square_s[at] * m_s[k];
      to.m_q[c] = arguments.inner[at] * m_s[k] + 2 * arguments.square_q[at] * m_q[k] +
                  arguments.features[q * C + c] / static_cast<T>(way);
    }
  }
}

// The gradients of the weights of query q and a class, a warp for each position.
template <class T>
__device__ void write_weight_gradients(const ClassTermsGradientArguments<T>& arguments,
                                       std::int64_t q, const ClassOfInputs<T>& of,
                                       const MeanGradients<T>& from) {
  const ClassTermsInputs<T>& in = arguments.in;
  const std::int64_t warp = threadIdx.x / kWarp, warps = kSumThreads / kWarp, C = in.C;
  for (std::int64_t n = warp; n < of.shots * in.P; n += warps) {
    const std::int64_t row = of.support_row(n, in.P);
    const T along = warp_inner_product(in.support + row * C, from.m_s, C);
    if (lane_index() == 0) arguments.a_grad[q * in.S * in.P + row] = of.share(in.P) * along;
  }
  for (std::int64_t j = warp; j < in.M; j += warps) {
    const T along = warp_inner_product(in.query + (q * in.M + j) * C, from.m_q, C);
    for (std::int64_t k = lane_index(); k < of.shots; k += kWarp) {
      arguments.b_grad[(q * in.S + of.images[k]) * in.M + j] = of.share(in.M) * along;
    }
  }
}

// The gradients of the means and of the weights, a block for each query and class.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1)
    class_terms_backward(ClassTermsGradientArguments<T> arguments) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  const RowList<T> list{offsets, weights};
  const std::int64_t way = arguments.in.classes.way;
  for (std::int64_t at = blockIdx.x; at < arguments.in.Q * way; at += gridDim.x) {
    const ClassOfInputs<T> of(arguments.in, at % way);
    const MeanGradients<T> means(arguments, at);
    write_mean_gradients(arguments, at, of, list, means);
    __syncthreads();  // now the block reads what it wrote
    write_weight_gradients(arguments, at / way, of, means);
  }
}

// support_grad [S, P, C], from the gradients of m_s of all queries; a block for each position.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1)
    class_support_gradient(ClassTermsGradientArguments<T> arguments) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  const RowList<T> list{offsets, weights};
  const ClassTermsInputs<T>& in = arguments.in;
  const std::int64_t way = in.classes.way, C = in.C;
  for (std::int64_t n = blockIdx.x; n < in.S * in.P; n += gridDim.x) {
    std::int64_t c = 0;  // the class of image n / P of the list
    while (c + 1 < way && in.classes.begin[c + 1] <= n / in.P) ++c;
    const ClassOfInputs<T> of(in, c);
    if (!of.valid) continue;
    const std::int64_t row = in.classes.images[n / in.P] * in.P + n % in.P;
    sum_rows(
        arguments.m_s_grad, C, in.Q,
        [&](std::int64_t q) -> WeightedRow<T> {
          return {(q * way + c) * C, of.share(in.P) * in.a[q * in.S * in.P + row]};
        },
        list, [&](std::int64_t own, T sum) { arguments.support_grad[row * C + own] = sum; });
  }
}

// query_grad [Q, M, C], from the gradients of m_q of all classes; a block for each position.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1)
    class_query_gradient(ClassTermsGradientArguments<T> arguments) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  const RowList<T> list{offsets, weights};
  const ClassTermsInputs<T>& in = arguments.in;
  const std::int64_t way = in.classes.way, C = in.C;
  for (std::int64_t row = blockIdx.x; row < in.Q * in.M; row += gridDim.x) {
    const std::int64_t q = row / in.M, j = row % in.M;
    sum_rows(
        arguments.m_q_grad, C, way,
        [&](std::int64_t c) -> WeightedRow<T> {
          return {(q * way + c) * C, ClassOfInputs<T>(in, c).query_weight(in, q, j)};
        },
        list, [&](std::int64_t own, T sum) { arguments.query_grad[row * C + own] = sum; });
  }
}

}  // namespace lwfm
