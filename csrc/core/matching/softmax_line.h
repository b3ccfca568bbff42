// The softmax of one standardized line of a block (a row or a column), and its derivative, entry by
// entry: what one thread of a GPU computes, callable on the host too. The same mathematics as
// column_softmax.h, which works on whole vectors of columns.
//
//   w_k = softmax_k( (x_k - mean x) / sqrt(var x + eps) / t )      variance unbiased
//
// Entries and gradients are given as functions of k, so that they may be stored in any layout.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/matching/constants.h"

namespace lwfm {

template <class T>
struct SoftmaxLine {
  T mean;
  T greatest;
  T scale;  // 1 / (sqrt(var x + eps) t)
  T share;  // 1 / sum_k exp((x_k - greatest) scale)

  LWFM_HOST_DEVICE T weight(T x) const { return std::exp((x - greatest) * scale) * share; }
};

template <class T, class Entry>
LWFM_HOST_DEVICE SoftmaxLine<T> softmax_line(const Entry& entry, int count, T temperature) {
  T sum{0}, greatest = entry(0);
  for (int k = 0; k < count; ++k) {
    const T x = entry(k);
    sum += x;
    greatest = x > greatest ? x : greatest;
  }
  const T mean = sum / static_cast<T>(count);
  T square{0};
  for (int k = 0; k < count; ++k) {
    const T x = entry(k) - mean;
    square += x * x;
  }
  // One entry has no unbiased variance; its softmax is 1 whatever the divisor.
  const T variance = square / static_cast<T>(count > 1 ? count - 1 : 1);
  const T scale = T{1} / (std::sqrt(variance + static_cast<T>(kStandardizeEps)) * temperature);
  T total{0};
  for (int k = 0; k < count; ++k) total += std::exp((entry(k) - greatest) * scale);
  return {mean, greatest, scale, T{1} / total};
}

// What the gradient of every entry of a line needs, from the gradients of its weights.
template <class T>
struct LineGradient {
  T mean;   // sum_k w_k grad_k
  T slope;  // sum_k w_k (grad_k - mean) (x_k - mean x) / (var x + eps) / (count - 1)
};

template <class T, class Entry, class Gradient>
LWFM_HOST_DEVICE LineGradient<T> line_gradient(const SoftmaxLine<T>& line, const Entry& entry,
                                               const Gradient& gradient, int count, T temperature) {
  T mean{0};
  for (int k = 0; k < count; ++k) mean += line.weight(entry(k)) * gradient(k);
  T slope{0};
  for (int k = 0; k < count; ++k) {
    const T x = entry(k);
    slope += line.weight(x) * (gradient(k) - mean) * (x - line.mean);
  }
  const T root = line.scale * temperature;
  return {mean, slope * (root * root / static_cast<T>(count > 1 ? count - 1 : 1))};
}

// The gradient of an entry x whose weight has the gradient `gradient`.
template <class T>
LWFM_HOST_DEVICE T entry_gradient(const SoftmaxLine<T>& line, const LineGradient<T>& of_line, T x,
                                  T gradient) {
  return (line.weight(x) * (gradient - of_line.mean) - (x - line.mean) * of_line.slope) *
         line.scale;
}

}  // namespace lwfm
