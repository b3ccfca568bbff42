// Queries whose blocks are processed side by side: one a lane of a vector, or one alone where
// blocks are large. No sum crosses lanes, so the result of a query does not depend on the others.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/matching/embedding_weights.h"
#include "core/matching/embedding_weights_lanes.h"

namespace lwfm {

// The steps of LaneWeights for one block, processed row by row.
template <class T>
class SingleWeights {
 public:
  LWFM_INLINE void read(const AdjacentBlocks<T>& blocks) {
    rows_ = blocks.rows;
    columns_ = blocks.columns;
    block_ = {{blocks.raw, rows_, columns_, blocks.row_step, blocks.column_step},
              {blocks.row_scales, 1},
              {blocks.column_scales, blocks.scale_step}};
    for (auto* of_rows : {&a_, &a_grad_}) of_rows->resize(static_cast<std::size_t>(rows_));
    for (auto* of_columns : {&b_, &b_grad_}) of_columns->resize(static_cast<std::size_t>(columns_));
    raw_grad_.resize(static_cast<std::size_t>(rows_ * columns_));
  }

  LWFM_INLINE void weigh(T temperature) {
    workspace_.forward(block_, temperature, a_.data(), b_.data());
  }

  LWFM_INLINE void differentiate(T temperature) {
    const WeightGradients<T> from{{a_grad_.data(), 1}, {b_grad_.data(), 1}};
    workspace_.backward(block_, temperature, from,
                        {{raw_grad_.data(), rows_, columns_, columns_, 1},
                         {a_grad_.data(), 1},
                         {b_grad_.data(), 1}});
  }

  T* a() { return a_.data(); }
  T* b() { return b_.data(); }
  T* a_grad() { return a_grad_.data(); }
  T* b_grad() { return b_grad_.data(); }
  T* raw_grad() { return raw_grad_.data(); }

 private:
  EmbeddingWeights<T> workspace_;
  ScaledBlock<T> block_{};
  std::int64_t rows_ = 0, columns_ = 0;
  std::vector<T> a_, b_, a_grad_, b_grad_, raw_grad_;
};

template <class T, int kBytes>
struct ManyQueries {
  using Number = T;
  using Value = Lanes<T, kBytes>;
  using Stored = LanesAnywhere<T, kBytes>;  // at any address
  using Weights = LaneWeights<T, kBytes>;
  static constexpr int kWidth = kLanes<T, kBytes>;
};

template <class T>
struct OneQuery {
  using Number = T;
  using Value = T;
  using Stored = T;
  using Weights = SingleWeights<T>;
  static constexpr int kWidth = 1;
};

// `size` values, one of each query.
template <class Queries>
class QueryArray {
  using T = typename Queries::Number;
  using Stored = typename Queries::Stored;

 public:
  void resize(std::int64_t size) {
    numbers_.resize(static_cast<std::size_t>(size * Queries::kWidth));
  }
  void clear() { std::fill(numbers_.begin(), numbers_.end(), T{0}); }
  T* numbers() { return numbers_.data(); }
  Stored* data() { return reinterpret_cast<Stored*>(numbers_.data()); }
  Stored& operator[](std::int64_t i) { return data()[i]; }

 private:
  std::vector<T> numbers_;
};

template <class Queries>
LWFM_INLINE const typename Queries::Stored& lanes_at(const typename Queries::Number* from) {
  return *reinterpret_cast<const typename Queries::Stored*>(from);
}
template <class Queries>
LWFM_INLINE typename Queries::Stored& lanes_at(typename Queries::Number* to) {
  return *reinterpret_cast<typename Queries::Stored*>(to);
}

// The first `count` lanes, for rows that are not a multiple of the vectors: the next ones belong to
// other queries.
template <class Queries>
LWFM_INLINE void write_lanes(const typename Queries::Value& from, int count,
                             typename Queries::Number* to) {
  if (count >= Queries::kWidth) {
    lanes_at<Queries>(to) = from;
  } else {
    std::memcpy(to, &from, static_cast<std::size_t>(count) * sizeof(typename Queries::Number));
  }
}
template <class Queries>
LWFM_INLINE void read_lanes(const typename Queries::Number* from, int count,
                            typename Queries::Value& to) {
  if (count >= Queries::kWidth) {
    to = lanes_at<Queries>(from);
  } else {
    to = typename Queries::Value{};
    std::memcpy(&to, from, static_cast<std::size_t>(count) * sizeof(typename Queries::Number));
  }
}

}  // namespace lwfm
