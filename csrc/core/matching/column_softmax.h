// The softmax of standardized columns, and its derivative. X is [rows, columns], its rows padded to
// whole vectors, and every step works on a panel of columns, one column a lane.
//
//   A = softmax_i( (X - mean_i X) / sqrt(var_i X + eps) / t )      variance unbiased
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/matching/constants.h"
#include "core/simd/lanes.h"

namespace lwfm {

template <class T>
class ColumnSoftmax {
 public:
  void reserve(std::int64_t rows, std::int64_t columns) {
    rows_ = rows;
    columns_ = columns;
    length_ = padded<T>(columns);
    const auto entries = static_cast<std::size_t>(rows * length_);
    // Padding stays zero: only whole entries are written from outside.
    x_.assign(entries, T{0});
    soft_.resize(entries);
    scale_.resize(static_cast<std::size_t>(length_));
    precision_.resize(static_cast<std::size_t>(length_));
  }

  std::int64_t length() const { return length_; }
  T* x() { return x_.data(); }                    // X; after forward, X less its column means
  const T* soft() const { return soft_.data(); }  // A, zero in the padding

  LWFM_INLINE void forward(T temperature) {
    for (std::int64_t j = 0; j < length_; j += kLanes<T>) {
      Lanes<T> greatest;
      center(j, greatest);
      read_scales(j, temperature);
      soften(j, greatest);
    }
  }

  // sums[i] = sum_j A_ij
  LWFM_INLINE void row_sums(T* sums) const {
    for (std::int64_t i = 0; i < rows_; ++i) {
      Lanes<T> sum{}, a;
      for (std::int64_t j = 0; j < length_; j += kLanes<T>) {
        load(soft_.data() + i * length_ + j, a);
        sum += a;
      }
      sums[i] = sum_of_lanes<T>(sum);
    }
  }

  // The gradient of X when row_sums has the gradient `grad` [rows]; it takes the place of A.
  LWFM_INLINE void backward(const T* grad) {
    const T degrees = static_cast<T>(std::max<std::int64_t>(rows_ - 1, 1));
    for (std::int64_t j = 0; j < length_; j += kLanes<T>) {
      Lanes<T> mean{}, slope{}, a, c, scale, precision;
      for (std::int64_t i = 0; i < rows_; ++i) {
        load(soft_.data() + i * length_ + j, a);
        mean += a * grad[i];
      }
      for (std::int64_t i = 0; i < rows_; ++i) {
        load(soft_.data() + i * length_ + j, a);
        load(x_.data() + i * length_ + j, c);
        a *= grad[i] - mean;
        slope += a * c;
        store<T>(a, soft_.data() + i * length_ + j);
      }
      load(scale_.data() + j, scale);
      load(precision_.data() + j, precision);
      slope *= precision / degrees;
      // The mean of the gradient over i, which centering takes off, is zero already.
      for (std::int64_t i = 0; i < rows_; ++i) {
        load(soft_.data() + i * length_ + j, a);
        load(x_.data() + i * length_ + j, c);
        a = (a - c * slope) * scale;
        store<T>(a, soft_.data() + i * length_ + j);
      }
    }
  }

 private:
  // Takes the means off, leaves the variances in precision_ and the greatest entries in `greatest`.
  LWFM_INLINE void center(std::int64_t j, Lanes<T>& greatest) {
    Lanes<T> mean{}, variance{}, x;
    greatest = mean;  // of centered entries it is never below zero
    for (std::int64_t i = 0; i < rows_; ++i) {
      load(x_.data() + i * length_ + j, x);
      mean += x;
    }
    mean /= static_cast<T>(rows_);
    for (std::int64_t i = 0; i < rows_; ++i) {
      load(x_.data() + i * length_ + j, x);
      x -= mean;
      greatest = x > greatest ? x : greatest;
      variance += x * x;
      store<T>(x, x_.data() + i * length_ + j);
    }
    // One row has no unbiased variance; its softmax is 1 whatever the divisor.
    variance /= static_cast<T>(std::max<std::int64_t>(rows_ - 1, 1));
    store<T>(variance, precision_.data() + j);
  }

  LWFM_INLINE void read_scales(std::int64_t j, T temperature) {
    for (std::int64_t lane = j; lane < j + kLanes<T>; ++lane) {
      const T precision = T{1} / (precision_[lane] + static_cast<T>(kStandardizeEps));
      precision_[lane] = precision;
      scale_[lane] = std::sqrt(precision) / temperature;
    }
  }

  LWFM_INLINE void soften(std::int64_t j, const Lanes<T>& greatest) {
    Lanes<T> total{}, scale, x;
    load(scale_.data() + j, scale);
    for (std::int64_t i = 0; i < rows_; ++i) {
      load(x_.data() + i * length_ + j, x);
      x = (x - greatest) * scale;
      exponentiate<T>(x);
      total += x;
      store<T>(x, soft_.data() + i * length_ + j);
    }
    total = T{1} / total;
    for (std::int64_t lane = columns_ - j; lane < kLanes<T>; ++lane) total[lane] = T{0};
    for (std::int64_t i = 0; i < rows_; ++i) {
      load(soft_.data() + i * length_ + j, x);
      x *= total;
      store<T>(x, soft_.data() + i * length_ + j);
    }
  }

  std::int64_t rows_ = 0, columns_ = 0, length_ = 0;
  std::vector<T> x_, soft_, scale_, precision_;
};

}  // namespace lwfm
