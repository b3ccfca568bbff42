// Layer-wise embedding of a group of pairs at once, one pair a lane: the mathematics of
// embedding_weights.h for blocks so small that a row of them would not fill the vectors. Nothing is
// padded or transposed and no sum crosses lanes, so a pair's result does not depend on the others
// of its group. Deterministic, and the same on every instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "block.h"
#include "column_softmax.h"
#include "embedding_weights.h"
#include "lanes.h"
#include "simd.h"
#include "vectorised.h"

namespace lwfm {

// Entries of the largest blocks that are worked on in groups: what a group needs still fits in L2.
constexpr std::int64_t kGroupedEntries = 1024;

// Pairs with blocks of one shape; pairs beyond `count` are not looked at.
template <class T>
struct PairGroup {
  ScaledBlock<T> blocks[kLanes<T>];
  int count;  // 1 to kLanes
};

// `size` vectors of lanes.
template <class T>
class LaneArray {
 public:
  void resize(std::int64_t size) {
    numbers_.assign(static_cast<std::size_t>(size * kLanes<T>), T{0});
  }
  void clear() { std::fill(numbers_.begin(), numbers_.end(), T{0}); }

  std::int64_t size() const { return static_cast<std::int64_t>(numbers_.size()) / kLanes<T>; }
  LanesAnywhere<T>* data() { return reinterpret_cast<LanesAnywhere<T>*>(numbers_.data()); }
  LanesAnywhere<T>& operator[](std::int64_t i) { return data()[i]; }
  T* numbers() { return numbers_.data(); }

 private:
  std::vector<T> numbers_;
};

// Memory of one thread and the arithmetic in it.
template <class T>
class GroupWeights {
 public:
  // Writes a [count, rows], b [count, columns] and reached [count, columns].
  LWFM_INLINE void forward(const PairGroup<T>& group, T temperature, T* a, T* b, T* reached) {
    read(group);
    soften(down_, temperature, a_.data());
    soften(across_, temperature, b_.data());
    const LanesAnywhere<T>* raw = raw_.data();
    reached_.clear();
    for (std::int64_t i = 0; i < rows_; ++i) {
      const Lanes<T> weight = a_[i];
      for (std::int64_t j = 0; j < columns_; ++j) reached_[j] += *raw++ * weight;
    }
    scatter(a_, group.count, a);
    scatter(b_, group.count, b);
    scatter(reached_, group.count, reached);
  }

  // From the gradients of a, b and reached of each pair; recomputes the forward pass.
  LWFM_INLINE void backward(const PairGroup<T>& group, T temperature,
                            const WeightGradients<T>* from, const BlockGradient<T>* to) {
    read(group);
    read_gradients(from, group.count);
    grad_.clear();
    soften(down_, temperature, a_.data());
    differentiate(down_, temperature, a_grad_.data());
    soften(across_, temperature, b_.data());
    differentiate(across_, temperature, b_grad_.data());
    multiply_out();
    write(group.count, to);
  }

 private:
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
    const auto resize = [](std::initializer_list<LaneArray<T>*> all, std::int64_t size) {
      for (LaneArray<T>* one : all) one->resize(size);
    };
    resize({&raw_, &x_, &soft_, &grad_}, rows * columns);
    resize({&row_scale_, &a_, &a_grad_}, rows);
    resize({&column_scale_, &b_, &b_grad_, &reached_, &reached_grad_}, columns);
    resize({&scale_, &mean_, &greatest_}, std::max(rows, columns));
  }

  // Lanes without a pair repeat the last one.
  LWFM_INLINE void read(const PairGroup<T>& group) {
    reserve(group.blocks[0].raw.rows, group.blocks[0].raw.columns);
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const ScaledBlock<T>& block = group.blocks[std::min(lane, group.count - 1)];
      gather(block.row_scale, lane, row_scale_);
      gather(block.column_scale, lane, column_scale_);
      T* raw = raw_.numbers() + lane;
      for (std::int64_t i = 0; i < rows_; ++i) {
        for (std::int64_t j = 0; j < columns_; ++j, raw += kLanes<T>) *raw = block.raw.at(i, j);
      }
    }
    const LanesAnywhere<T>* raw = raw_.data();
    LanesAnywhere<T>* x = x_.data();
    for (std::int64_t i = 0; i < rows_; ++i) {
      const Lanes<T> scale = row_scale_[i];
      for (std::int64_t j = 0; j < columns_; ++j) *x++ = *raw++ * scale * column_scale_[j];
    }
  }

  // The gradient of a also gets what it contributes to reached.
  LWFM_INLINE void read_gradients(const WeightGradients<T>* from, int count) {
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const WeightGradients<T>& given = from[std::min(lane, count - 1)];
      gather(given.a, lane, a_grad_);
      gather(given.b, lane, b_grad_);
      gather(given.reached, lane, reached_grad_);
    }
    const LanesAnywhere<T>* raw = raw_.data();
    for (std::int64_t i = 0; i < rows_; ++i) {
      Lanes<T> sum = a_grad_[i];
      for (std::int64_t j = 0; j < columns_; ++j) sum += *raw++ * reached_grad_[j];
      a_grad_[i] = sum;
    }
  }

  // The softmax of every standardised line; its sums over the lines are the weights.
  LWFM_INLINE void soften(const Lines& lines, T temperature, LanesAnywhere<T>* weights) {
    for (std::int64_t k = 0; k < lines.count; ++k) measure(lines, k);
    // All lines in one loop over plain numbers: compilers have vectors of square roots only there.
    T* scale = scale_.numbers();
    for (std::int64_t k = 0; k < lines.count * kLanes<T>; ++k) {
      scale[k] = T{1} / (std::sqrt(scale[k] + static_cast<T>(kStandardiseEps)) * temperature);
    }
    for (std::int64_t e = 0; e < lines.length; ++e) weights[e] = Lanes<T>{};
    for (std::int64_t k = 0; k < lines.count; ++k) {
      const LanesAnywhere<T>* x = x_.data() + k * lines.start;
      LanesAnywhere<T>* soft = soft_.data() + k * lines.start;
      const Lanes<T> factor = scale_[k], greatest = greatest_[k];
      Lanes<T> total{};
      for (std::int64_t e = 0; e < lines.length; ++e) {
        Lanes<T> power = (x[e * lines.step] - greatest) * factor;
        exponentiate<T>(power);
        total += power;
        soft[e * lines.step] = power;
      }
      const Lanes<T> share = T{1} / total;
      for (std::int64_t e = 0; e < lines.length; ++e) {
        const Lanes<T> weight = soft[e * lines.step] * share;
        soft[e * lines.step] = weight;
        weights[e] += weight;
      }
    }
  }

  // Mean, greatest entry and (into scale_) variance of line k.
  LWFM_INLINE void measure(const Lines& lines, std::int64_t k) {
    const LanesAnywhere<T>* x = x_.data() + k * lines.start;
    Lanes<T> mean{}, variance{}, greatest = x[0];
    for (std::int64_t e = 0; e < lines.length; ++e) {
      const Lanes<T> entry = x[e * lines.step];
      mean += entry;
      greatest = entry > greatest ? entry : greatest;
    }
    mean /= static_cast<T>(lines.length);
    for (std::int64_t e = 0; e < lines.length; ++e) {
      const Lanes<T> centred = x[e * lines.step] - mean;
      variance += centred * centred;
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
  LWFM_INLINE void differentiate(const Lines& lines, T temperature,
                                 const LanesAnywhere<T>* weights_grad) {
    const T factor = temperature * temperature / degrees_of_freedom(lines);
    for (std::int64_t k = 0; k < lines.count; ++k) {
      const LanesAnywhere<T>* x = x_.data() + k * lines.start;
      LanesAnywhere<T>* soft = soft_.data() + k * lines.start;
      LanesAnywhere<T>* grad = grad_.data() + k * lines.start;
      const Lanes<T> mean_x = mean_[k], scale = scale_[k];
      Lanes<T> mean{}, slope{};
      for (std::int64_t e = 0; e < lines.length; ++e) {
        mean += soft[e * lines.step] * weights_grad[e];
      }
      for (std::int64_t e = 0; e < lines.length; ++e) {
        const Lanes<T> inner = soft[e * lines.step] * (weights_grad[e] - mean);
        slope += inner * (x[e * lines.step] - mean_x);
        soft[e * lines.step] = inner;
      }
      slope *= scale * scale * factor;  // 1 / (variance + eps) / (length - 1)
      // The mean of the gradient over a line, which centring takes off, is zero already.
      for (std::int64_t e = 0; e < lines.length; ++e) {
        const Lanes<T> centred = x[e * lines.step] - mean_x;
        grad[e * lines.step] += (soft[e * lines.step] - centred * slope) * scale;
      }
    }
  }

  // From the gradient of X to those of the raw block (in grad_), of the row scales (in a_grad_) and
  // of the column scales (in b_grad_).
  LWFM_INLINE void multiply_out() {
    b_grad_.clear();
    LanesAnywhere<T>* grad = grad_.data();
    const LanesAnywhere<T>* raw = raw_.data();
    for (std::int64_t i = 0; i < rows_; ++i) {
      const Lanes<T> factor = row_scale_[i], a = a_[i];
      Lanes<T> sum{};
      for (std::int64_t j = 0; j < columns_; ++j, ++grad, ++raw) {
        const Lanes<T> scaled = *grad * column_scale_[j];
        b_grad_[j] += *grad * *raw * factor;
        sum += scaled * *raw;
        *grad = scaled * factor + reached_grad_[j] * a;
      }
      a_grad_[i] = sum;
    }
  }

  LWFM_INLINE void write(int count, const BlockGradient<T>* to) {
    for (int lane = 0; lane < count; ++lane) {
      const T* grad = grad_.numbers() + lane;
      for (std::int64_t i = 0; i < rows_; ++i) {
        to[lane].row_scale[i] = a_grad_.numbers()[i * kLanes<T> + lane];
        for (std::int64_t j = 0; j < columns_; ++j, grad += kLanes<T>)
          to[lane].raw.at(i, j) = *grad;
      }
      for (std::int64_t j = 0; j < columns_; ++j) {
        to[lane].column_scale[j] = b_grad_.numbers()[j * kLanes<T> + lane];
      }
    }
  }

  static LWFM_INLINE void gather(const VectorView<const T>& from, int lane, LaneArray<T>& to) {
    T* number = to.numbers() + lane;
    for (std::int64_t i = 0; i < to.size(); ++i) number[i * kLanes<T>] = from[i];
  }

  // to [count, entries]
  static LWFM_INLINE void scatter(LaneArray<T>& from, int count, T* to) {
    for (int lane = 0; lane < count; ++lane) {
      const T* number = from.numbers() + lane;
      for (std::int64_t i = 0; i < from.size(); ++i) *to++ = number[i * kLanes<T>];
    }
  }

  std::int64_t rows_ = 0, columns_ = 0;
  Lines down_{}, across_{};
  LaneArray<T> raw_, x_, soft_, grad_;      // [rows, columns]
  LaneArray<T> row_scale_, a_, a_grad_;     // [rows]
  LaneArray<T> column_scale_, b_, b_grad_;  // [columns]
  LaneArray<T> reached_, reached_grad_;     // [columns]
  LaneArray<T> scale_, mean_, greatest_;    // one entry a line
};

// As `weigh`, for a group: writes a [count, rows], b [count, columns] and reached [count, columns].
template <class T>
void weigh_group(GroupWeights<T>& workspace, const PairGroup<T>& group, T temperature, T* a, T* b,
                 T* reached, SimdLevel level = simd_level()) {
  vectorised([&]() LWFM_INLINE_LAMBDA { workspace.forward(group, temperature, a, b, reached); },
             level);
}

// As `weigh_backward`, for a group; `from` and `to` have an entry for each of its pairs.
template <class T>
void weigh_group_backward(GroupWeights<T>& workspace, const PairGroup<T>& group, T temperature,
                          const WeightGradients<T>* from, const BlockGradient<T>* to,
                          SimdLevel level = simd_level()) {
  vectorised([&]() LWFM_INLINE_LAMBDA { workspace.backward(group, temperature, from, to); }, level);
}

}  // namespace lwfm
