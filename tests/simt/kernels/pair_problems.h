// Batches of blocks as the head makes them, in heap buffers of exactly their size: raw is a
// permuted view of one matrix product, the scales are expanded over the other side's images.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/matching/block.h"
#include "cpp/check.h"
#include "cuda/pair_arguments.h"
#include "simt/emulator/emulator.h"
#include "simt/emulator/schedules.h"

namespace tests {

struct Shape {
  int queries, supports, rows, columns;

  int pairs() const { return queries * supports; }
};

inline lwfm::PairShape pair_shape(const Shape& shape) {
  return {{2, shape.pairs(), {shape.queries, shape.supports}}, shape.rows, shape.columns};
}

inline std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// raw [S P, Q M] seen as [Q, S, P, M]; row_scale [S, P] as [Q, S, P]; column_scale [Q, M] as
// [Q, S, M].
template <class T>
struct Blocks {
  Shape shape;
  std::vector<T> raw, row_scale, column_scale;

  Blocks(const Shape& s, std::mt19937_64& engine)
      : shape(s),
        raw(size(std::int64_t{s.pairs()} * s.rows * s.columns)),
        row_scale(size(s.supports * s.rows)),
        column_scale(size(s.queries * s.columns)) {
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.5, 2.0);
    for (T& x : raw) x = static_cast<T>(normal(engine));
    for (T& x : row_scale) x = static_cast<T>(uniform(engine));
    for (T& x : column_scale) x = static_cast<T>(uniform(engine));
  }

  // Strides of raw: query, support, row, column.
  std::int64_t length() const { return std::int64_t{shape.queries} * shape.columns; }

  template <class View>
  lwfm::PairBlocks<View> raw_view(View* data) const {
    return {data, {{shape.columns, shape.rows * length()}}, length(), 1};
  }

  lwfm::PairScaledBlocks<T> view() const {
    return {raw_view<const T>(raw.data()),
            {row_scale.data(), {{0, shape.rows}}, 1},
            {column_scale.data(), {{shape.columns, 0}}, 1}};
  }

  // The block of pair p, for the functions of the core.
  lwfm::ScaledBlock<T> block(int p) const {
    const int q = p / shape.supports, s = p % shape.supports;
    const T* first = raw.data() + q * shape.columns + s * shape.rows * length();
    return {{first, shape.rows, shape.columns, length(), 1},
            {row_scale.data() + s * shape.rows, 1},
            {column_scale.data() + q * shape.columns, 1}};
  }
};

// Gradients of Blocks as an operator allocates them.
template <class T>
struct Gradients {
  Shape shape;
  std::vector<T> raw, row_scale, column_scale;

  explicit Gradients(const Blocks<T>& blocks)
      : shape(blocks.shape),
        raw(blocks.raw.size(), std::numeric_limits<T>::quiet_NaN()),
        row_scale(size(shape.pairs() * shape.rows), std::numeric_limits<T>::quiet_NaN()),
        column_scale(size(shape.pairs() * shape.columns), std::numeric_limits<T>::quiet_NaN()) {}

  void fill(T value) {
    for (auto* part : {&raw, &row_scale, &column_scale})
      std::fill(part->begin(), part->end(), value);
  }

  lwfm::PairGradients<T> view(const Blocks<T>& blocks) {
    return {blocks.template raw_view<T>(raw.data()), row_scale.data(), column_scale.data()};
  }

  lwfm::BlockGradient<T> block(const Blocks<T>& blocks, int p) {
    const auto offset = blocks.block(p).raw.data - blocks.raw.data();
    return {{raw.data() + offset, shape.rows, shape.columns, blocks.length(), 1},
            {row_scale.data() + p * shape.rows, 1},
            {column_scale.data() + p * shape.columns, 1}};
  }
};

// Contiguous [Q, S, n].
template <class T>
lwfm::PairVectors<const T> contiguous(const std::vector<T>& data, const Shape& shape, int n) {
  return {data.data(), {{std::int64_t{shape.supports} * n, n}}, 1};
}

template <class T>
std::vector<T> random_vector(std::int64_t n, std::mt19937_64& engine) {
  std::vector<T> result(size(n));
  std::normal_distribution<double> normal;
  for (T& x : result) x = static_cast<T>(normal(engine));
  return result;
}

// Equal up to rounding of sums of `terms` terms, relative to the largest expected entry; NaN equals
// NaN.
template <class T>
bool close(const std::vector<T>& actual, const std::vector<T>& expected, double terms) {
  double greatest = 1.0;
  for (const T x : expected) {
    if (std::isfinite(x)) greatest = std::max(greatest, std::abs(static_cast<double>(x)));
  }
  const double tolerance = 8 * terms * greatest * std::numeric_limits<T>::epsilon();
  bool same = actual.size() == expected.size();
  for (std::size_t k = 0; same && k < expected.size(); ++k) {
    same = std::isnan(expected[k]) ? std::isnan(actual[k])
                                   : std::abs(actual[k] - expected[k]) <= tolerance;
  }
  return same;
}

// Shapes that fill a warp, overflow it, need a thread block, and do not fit in shared memory.
inline std::vector<Shape> shapes() {
  return {{2, 3, 9, 9},   {1, 1, 1, 1},  {3, 2, 4, 7},   {2, 2, 7, 4},
          {2, 2, 25, 25}, {1, 2, 3, 40}, {1, 2, 36, 36}, {5, 1, 1, 9}};
}

}  // namespace tests
