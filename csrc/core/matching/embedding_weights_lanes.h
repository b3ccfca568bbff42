// Layer-wise embedding of a few pairs at once, one pair per lane: the arithmetic of
// embedding_weights.h for blocks so small that a row would not fill the vectors. Nothing is
// padded or transposed and no sum crosses lanes, so a pair's result does not depend on the others.
// Deterministic, and the same on every instruction set and for every size of vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "core/matching/block.h"
#include "core/matching/constants.h"
#include "core/matching/embedding_weights.h"
#include "core/simd/lanes.h"

namespace lwfm {

// `size` vectors of lanes.
template <class T, int kBytes>
class LaneArray {
  static constexpr int kWidth = kLanes<T, kBytes>;

 public:
  void resize(std::int64_t size) { numbers_.assign(static_cast<std::size_t>(size * kWidth), T{0}); }
  void clear() { std::fill(numbers_.begin(), numbers_.end(), T{0}); }

  std::int64_t size() const { return static_cast<std::int64_t>(numbers_.size()) / kWidth; }
  LanesAnywhere<T, kBytes>* data() {
    return reinterpret_cast<LanesAnywhere<T, kBytes>*>(numbers_.data());
  }
  LanesAnywhere<T, kBytes>& operator[](std::int64_t i) { return data()[i]; }
  T* numbers() { return numbers_.data(); }

 private:
  std::vector<T> numbers_;
};

// Blocks [rows, columns] of one support image and several queries, whose numbers are adjacent.
template <class T>
struct AdjacentBlocks {
  const T* raw;
  std::int64_t rows, columns, row_step, column_step;
  const T* row_scales;     // [rows]
  const T* column_scales;  // [columns], scale_step apart
  std::int64_t scale_step;
};

// Memory of one thread and the arithmetic in it, for as many pairs as vectors of kBytes have lanes.
template <class T, int kBytes>
class LaneWeights {
  static constexpr int kWidth = kLanes<T, kBytes>;
  using Vector = Lanes<T, kBytes>;
  using Vectors = LanesAnywhere<T, kBytes>;
  using Array = LaneArray<T, kBytes>;

 public:
  // Of `count` pairs: writes a [count, rows] and b [count, columns].
  LWFM_INLINE void forward(const ScaledBlock<T>* blocks, int count, T temperature, T* a, T* b) {
    read(blocks, count);
    weigh(temperature);
    scatter(a_, count, a);
    scatter(b_, count, b);
  }

  // From the gradients of a and b of each pair; recomputes the forward pass.
  LWFM_INLINE void backward(const ScaledBlock<T>* blocks, int count, T temperature,
                            const WeightGradients<T>* from, const BlockGradient<T>* to) {
    read(blocks, count);
    read_gradients(from, count);
    differentiate(temperature);
    write(count, to);
  }

  // The same in steps, for blocks whose lanes are adjacent in memory.
  //
  // Reads raw(i, j) at raw + i * row_step + j * column_step, the scale of column j at
  // column_scales + j * scale_step; that of a row is the same in all lanes.
  LWFM_INLINE void read(const AdjacentBlocks<T>& blocks) {
    reserve(blocks.rows, blocks.columns);
    for (std::int64_t j = 0; j < columns_; ++j) {
      column_scale_[j] = at(blocks.column_scales + j * blocks.scale_step);
    }
    for (std::int64_t i = 0; i < rows_; ++i) row_scale_[i] = Vector{} + blocks.row_scales[i];
    scale_products({blocks.raw, blocks.row_step, blocks.column_step});
  }

  // a and b of the blocks that were read.
  LWFM_INLINE void weigh(T temperature) {
    soften(down_, temperature);
    sum_lines(down_, a_.data());
    soften(across_, temperature);
    sum_lines(across_, b_.data());
  }

  // From a_grad and b_grad to the gradients of the blocks that were read: of the products in
  // raw_grad, of the row scales in place of a_grad, of the column scales in place of b_grad.
  LWFM_INLINE void differentiate(T temperature) {
    grad_.clear();
    soften(down_, temperature);
    differentiate(down_, temperature, a_grad_.data());
    soften(across_, temperature);
    differentiate(across_, temperature, b_grad_.data());
    multiply_out();
  }

  Vectors* a() { return a_.data(); }            // [rows]
  Vectors* b() { return b_.data(); }            // [columns]
  Vectors* a_grad() { return a_grad_.data(); }  // [rows]
  Vectors* b_grad() { return b_grad_.data(); }  // [columns]
  Vectors* raw_grad() { return grad_.data(); }  // [rows, columns]

 private:
  static LWFM_INLINE const Vectors& at(const T* from) {
    return *reinterpret_cast<const Vectors*>(from);
  }

  // The blocks' products (i, j) of all lanes at data + i * row_step + j * column_step.
  struct Products {
    const T* data;
    std::int64_t row_step, column_step;
  };

  // The lines of a block in one direction: their first entries are `start` apart, the entries of
  // one `step`.
  struct Lines {
    std::int64_t count, length, start, step;
  };

  void reserve(std::int64_t rows, std::int64_t columns) {
    if (rows == rows_ && columns == columns_) return;
    rows_ = rows;
    columns_ = columns;
    down_ = {columns, rows, 1, columns};
    across_ = {rows, columns, columns, 1};
    const auto resize = [](std::initializer_list<Array*> all, std::int64_t size) {
      for (Array* one : all) one->resize(size);
    };
    resize({&gathered_, &x_, &soft_, &grad_}, rows * columns);
    resize({&row_scale_, &a_, &a_grad_}, rows);
    resize({&column_scale_, &b_, &b_grad_}, columns);
    resize({&scale_, &mean_, &greatest_, &share_}, std::max(rows, columns));
  }

  // Lanes without a pair repeat the last one.
  LWFM_INLINE void read(const ScaledBlock<T>* blocks, int count) {
    reserve(blocks[0].raw.rows, blocks[0].raw.columns);
    for (int lane = 0; lane < kWidth; ++lane) {
      const ScaledBlock<T>& block = blocks[std::min(lane, count - 1)];
      gather(block.row_scale, lane, row_scale_);
      gather(block.column_scale, lane, column_scale_);
      T* raw = gathered_.numbers() + lane;
      for (std::int64_t i = 0; i < rows_; ++i) {
        for (std::int64_t j = 0; j < columns_; ++j, raw += kWidth) *raw = block.raw.at(i, j);
      }
    }
    scale_products({gathered_.numbers(), columns_ * kWidth, kWidth});
  }

  LWFM_INLINE void scale_products(const Products& raw) {
    raw_ = raw;
    Vectors* x = x_.data();
    for (std::int64_t i = 0; i < rows_; ++i) {
      const Vector scale = row_scale_[i];
      const T* from = raw.data + i * raw.row_step;
      for (std::int64_t j = 0; j < columns_; ++j, from += raw.column_step) {
        *x++ = at(from) * scale * column_scale_[j];
      }
    }
  }

  LWFM_INLINE void read_gradients(const WeightGradients<T>* from, int count) {
    for (int lane = 0; lane < kWidth; ++lane) {
      const WeightGradients<T>& given = from[std::min(lane, count - 1)];
      gather(given.a, lane, a_grad_);
      gather(given.b, lane, b_grad_);
    }
  }

  // The softmax of every standardized line, as numbers in soft_ that are to be multiplied with the
  // line's share_.
  LWFM_INLINE void soften(const Lines& lines, T temperature) {
    for (std::int64_t k = 0; k < lines.count; ++k) measure(lines, k);
    // All lines in one loop over plain numbers: compilers have vectors of square roots only there.
    T* scale = scale_.numbers();
    for (std::int64_t k = 0; k < lines.count * kWidth; ++k) {
      scale[k] = T{1} / (std::sqrt(scale[k] + static_cast<T>(kStandardizeEps)) * temperature);
    }
    for (std::int64_t k = 0; k < lines.count; ++k) {
      const Vectors* x = x_.data() + k * lines.start;
      Vectors* soft = soft_.data() + k * lines.start;
      const Vector factor = scale_[k], greatest = greatest_[k];
      Vector total{};
      for (std::int64_t e = 0; e < lines.length; ++e) {
        Vector power = (x[e * lines.step] - greatest) * factor;
        exponentiate<T>(power);
        total += power;
        soft[e * lines.step] = power;
      }
      share_[k] = T{1} / total;
    }
  }

  // The sums of softmaxes over all lines: the weights.
  LWFM_INLINE void sum_lines(const Lines& lines, Vectors* weights) {
    for (std::int64_t e = 0; e < lines.length; ++e) {
      const Vectors* soft = soft_.data() + e * lines.step;
      Vector sum{};
      for (std::int64_t k = 0; k < lines.count; ++k) sum += soft[k * lines.start] * share_[k];
      weights[e] = sum;
    }
  }

  // Mean, greatest entry and (into scale_) variance of line k.
  LWFM_INLINE void measure(const Lines& lines, std::int64_t k) {
    const Vectors* x = x_.data() + k * lines.start;
    Vector mean{}, variance{}, greatest = x[0];
    for (std::int64_t e = 0; e < lines.length; ++e) {
      const Vector entry = x[e * lines.step];
      mean += entry;
      greatest = entry > greatest ? entry : greatest;
    }
    mean /= static_cast<T>(lines.length);
    for (std::int64_t e = 0; e < lines.length; ++e) {
      const Vector centered = x[e * lines.step] - mean;
      variance += centered * centered;
    }
    mean_[k] = mean;
    greatest_[k] = greatest;
    scale_[k] = variance / degrees_of_freedom(lines);
  }

  // One entry has no unbiased variance; its softmax is 1 whatever the divisor.
  static T degrees_of_freedom(const Lines& lines) {
    return static_cast<T>(std::max<std::int64_t>(lines.length - 1, 1));
  }

  // Adds to grad_, the gradient of X, what the weights of the lines softened last contribute.
  LWFM_INLINE void differentiate(const Lines& lines, T temperature, const Vectors* weights_grad) {
    const T factor = temperature * temperature / degrees_of_freedom(lines);
    for (std::int64_t k = 0; k < lines.count; ++k) {
      const Vectors* x = x_.data() + k * lines.start;
      Vectors* soft = soft_.data() + k * lines.start;
      Vectors* grad = grad_.data() + k * lines.start;
      const Vector mean_x = mean_[k], scale = scale_[k], share = share_[k];
      Vector mean{}, slope{};
      for (std::int64_t e = 0; e < lines.length; ++e) {
        mean += soft[e * lines.step] * share * weights_grad[e];
      }
      for (std::int64_t e = 0; e < lines.length; ++e) {
        const Vector inner = soft[e * lines.step] * share * (weights_grad[e] - mean);
        slope += inner * (x[e * lines.step] - mean_x);
        soft[e * lines.step] = inner;
      }
      slope *= scale * scale * factor;  // 1 / (variance + eps) / (length - 1)
      // The mean of the gradient over a line, which centering takes off, is zero already.
      for (std::int64_t e = 0; e < lines.length; ++e) {
        const Vector centered = x[e * lines.step] - mean_x;
        grad[e * lines.step] += (soft[e * lines.step] - centered * slope) * scale;
      }
    }
  }

  // From the gradient of X to those of the raw block (in grad_), of the row scales (in a_grad_) and
  // of the column scales (in b_grad_).
  LWFM_INLINE void multiply_out() {
    b_grad_.clear();
    Vectors* grad = grad_.data();
    for (std::int64_t i = 0; i < rows_; ++i) {
      const Vector factor = row_scale_[i];
      const T* from = raw_.data + i * raw_.row_step;
      Vector sum{};
      for (std::int64_t j = 0; j < columns_; ++j, ++grad, from += raw_.column_step) {
        const Vector raw = at(from), scaled = *grad * column_scale_[j];
        b_grad_[j] += *grad * raw * factor;
        sum += scaled * raw;
        *grad = scaled * factor;
      }
      a_grad_[i] = sum;
    }
  }

  LWFM_INLINE void write(int count, const BlockGradient<T>* to) {
    for (int lane = 0; lane < count; ++lane) {
      const T* grad = grad_.numbers() + lane;
      for (std::int64_t i = 0; i < rows_; ++i) {
        to[lane].row_scale[i] = a_grad_.numbers()[i * kWidth + lane];
        for (std::int64_t j = 0; j < columns_; ++j, grad += kWidth) to[lane].raw.at(i, j) = *grad;
      }
      for (std::int64_t j = 0; j < columns_; ++j) {
        to[lane].column_scale[j] = b_grad_.numbers()[j * kWidth + lane];
      }
    }
  }

  static LWFM_INLINE void gather(const VectorView<const T>& from, int lane, Array& to) {
    T* number = to.numbers() + lane;
    for (std::int64_t i = 0; i < to.size(); ++i) number[i * kWidth] = from[i];
  }

  // to [count, entries]
  static LWFM_INLINE void scatter(Array& from, int count, T* to) {
    for (int lane = 0; lane < count; ++lane) {
      const T* number = from.numbers() + lane;
      for (std::int64_t i = 0; i < from.size(); ++i) *to++ = number[i * kWidth];
    }
  }

  std::int64_t rows_ = 0, columns_ = 0;
  Lines down_{}, across_{};
  Products raw_{};
  Array gathered_;                         // [rows, columns], of products that are not adjacent
  Array x_, soft_, grad_;                  // [rows, columns]
  Array row_scale_, a_, a_grad_;           // [rows]
  Array column_scale_, b_, b_grad_;        // [columns]
  Array scale_, mean_, greatest_, share_;  // one entry a line
};

}  // namespace lwfm
