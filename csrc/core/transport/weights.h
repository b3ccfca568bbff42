// The weights of a transport problem: what is accepted, and integers in their place.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace lwfm {

// A strided view of the caller's weights.
template <class T>
struct WeightView {
  const T* data;
  std::int64_t count;
  std::int64_t stride;

  double operator[](std::int64_t i) const { return static_cast<double>(data[i * stride]); }
};

// The first weight that is negative or not finite; -1 if there is none.
template <class T>
std::int64_t invalid_weight(const WeightView<T>& weights) {
  for (std::int64_t i = 0; i < weights.count; ++i) {
    if (!(weights[i] >= 0.0 && std::isfinite(weights[i]))) return i;
  }
  return -1;
}

template <class T>
double sum_of(const WeightView<T>& weights) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < weights.count; ++i) sum += weights[i];
  return sum;
}

// Sums may differ by this, relative to the larger one; the columns are then scaled to the sum of
// the rows.
constexpr double kWeightTolerance = 1e-5;

inline bool are_balanced(double rows, double columns) {
  return std::isfinite(rows) && std::isfinite(columns) &&
         std::fabs(rows - columns) <= kWeightTolerance * std::max(rows, columns);
}

// Writes weights as positive integers, of equal sum, such that no proper subset of rows holds as
// much as a subset of columns. Sums are then exact, every arc of a spanning tree carries flow, and
// every pivot of the simplex method lowers the total, so that none is repeated.
//
// A. Orden, "The transhipment problem", Management Science 2 (1956), 276-285: rows get 1, one
// column all of it. In the units before that weights are rounded to whole numbers, and zeros become
// 1, which is less than 2^-50 of the sum below a thousand rows.
template <class T>
class IntegerWeights {
 public:
  // There are no more rows than columns, and at least one; the sums are balanced.
  IntegerWeights(const WeightView<T>& rows, double row_sum, const WeightView<T>& columns,
                 double column_sum)
      : rows_(rows), columns_(columns), row_sum_(row_sum), column_sum_(column_sum) {}

  void write(std::int64_t* supply, std::int64_t* demand) const {
    int shift = 1;
    while ((2 * rows_.count + 1) >> shift != 0) ++shift;
    std::int64_t surplus = 0;
    if (row_sum_ > 0.0) {
      int exponent = 0;
      std::frexp(row_sum_, &exponent);
      const int scale = kBits - shift - exponent;
      surplus = round(rows_, 1.0, scale, supply);
      surplus -= round(columns_, row_sum_ / column_sum_, scale, demand);
    } else {
      std::fill_n(supply, rows_.count, columns_.count);
      std::fill_n(demand, columns_.count, rows_.count);
    }
    std::int64_t* const largest = std::max_element(demand, demand + columns_.count);
    *largest += surplus;
    for (std::int64_t i = 0; i < rows_.count; ++i) supply[i] = (supply[i] << shift) + 1;
    for (std::int64_t j = 0; j < columns_.count; ++j) demand[j] <<= shift;
    *largest += rows_.count;
  }

 private:
  static constexpr int kBits = 62;  // of the sum

  // Writes weight * factor * 2^scale, at least 1; returns the sum.
  static std::int64_t round(const WeightView<T>& weights, double factor, int scale,
                            std::int64_t* to) {
    // In two steps: 2^scale alone may overflow.
    const double first = std::ldexp(1.0, scale / 2), second = std::ldexp(1.0, scale - scale / 2);
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < weights.count; ++i) {
      to[i] = std::max<std::int64_t>(
          1, static_cast<std::int64_t>(weights[i] * factor * first * second + 0.5));
      sum += to[i];
    }
    return sum;
  }

  const WeightView<T> rows_, columns_;
  const double row_sum_, column_sum_;
};

}  // namespace lwfm
