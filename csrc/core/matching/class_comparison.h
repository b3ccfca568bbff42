// One class of one layer compared with a few queries: layer-wise embedding of the class's support
// images, and what the layer contributes to the base term, all from products of positions. With
// the K images k of the class, R_k [P, P] their products with the query, G [K P, K P] those of the
// class's positions with one another and H [P, P] those of the query's:
//
//   (a_k, b_k) = layer-wise embedding of R_k     m_j = mean_k b_kj
//   inner    = sum_k a_k^T R_k m / (K P P)
//   square_s = a^T G a / (K P)^2                 square_q = m^T H m / P^2
//
// These are inner products and squared norms of the weighted class means of support and query, in
// which no channel occurs. "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot
// Learning", arXiv 2411.06363.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/matching/norms.h"
#include "core/matching/query_lanes.h"

namespace lwfm {

// Numbers of queries are adjacent: `queries` of them in the products, `scale_step` elsewhere.
template <class T>
struct ClassTile {
  std::int64_t shots, P;
  std::int64_t queries, scale_step;
  const T* raw;            // [K, P, P, queries]
  const T* row_scales;     // [K, P]: 1 / sqrt(|x|^2 + eps)
  const T* column_scales;  // [P, scale_step]
  const T* gram;           // [K P, K P], or null
  const T* class_sums;     // [K P, queries]: G a where there is no gram; null for zeros
  const T* query_grams;    // [P, P, scale_step]
  T temperature;           // infinite: all positions weigh the same

  bool weighs() const { return !std::isinf(temperature); }
  ClassTile from_query(std::int64_t lane) const {
    ClassTile tile = *this;
    tile.raw += lane;
    if (tile.class_sums != nullptr) tile.class_sums += lane;
    tile.column_scales += lane;
    tile.query_grams += lane;
    return tile;
  }
};

// Gradients of what a ClassComparison computes, and where those of its inputs go.
template <class T>
struct ClassTileGradient {
  const T *inner, *square_s, *square_q;  // [scale_step]
  const T* mean_b;                       // [P, scale_step], a further gradient of m; or null
  T* raw;                                // [K, P] rows of [P, queries], raw_step apart; written
  std::int64_t raw_step;
  T* row_squares;     // [K, P]: what is summed over the queries is added
  T* column_squares;  // [P, scale_step], added to
  T* query_grams;     // [P, P, scale_step], added to
};

template <class Queries>
class ClassComparison {
  using T = typename Queries::Number;
  using Value = typename Queries::Value;
  using Array = QueryArray<Queries>;

 public:
  Value inner, square_s, square_q;

  // Weights of the class's images; a() [K P], b() [K P].
  LWFM_INLINE void weigh(const ClassTile<T>& tile) {
    reserve(tile);
    for (std::int64_t k = 0; k < tile.shots; ++k) {
      auto *a = &a_[k * tile.P], *b = &b_[k * tile.P];
      if (tile.weighs()) {
        weights_.read(blocks_of(tile, k));
        weights_.weigh(tile.temperature);
      }
      for (std::int64_t i = 0; i < tile.P; ++i) {
        a[i] = tile.weighs() ? Value(weights_.a()[i]) : Value{} + T{1};
        b[i] = tile.weighs() ? Value(weights_.b()[i]) : Value{} + T{1};
      }
    }
    average(tile);
  }

  // The weights that `weigh` computed before, in rows of `stride` queries, `count` of them.
  LWFM_INLINE void read_weights(const ClassTile<T>& tile, const T* a, const T* b,
                                std::int64_t stride, int count) {
    reserve(tile);
    Value value;
    for (std::int64_t r = 0; r < tile.shots * tile.P; ++r) {
      read_lanes<Queries>(a + r * stride, count, value);
      a_[r] = value;
      read_lanes<Queries>(b + r * stride, count, value);
      b_[r] = value;
    }
    average(tile);
  }

  // To rows of `stride` queries, `count` of them; b may be null.
  LWFM_INLINE void write_weights(std::int64_t rows, std::int64_t stride, int count, T* a, T* b) {
    for (std::int64_t r = 0; r < rows; ++r) {
      // Copies, because references to vectors at any address lose that they are.
      const Value of_row = a_[r], of_column = b_[r];
      write_lanes<Queries>(of_row, count, a + r * stride);
      if (b != nullptr) write_lanes<Queries>(of_column, count, b + r * stride);
    }
  }

  // Leaves the three sums in `inner`, `square_s` and `square_q`.
  LWFM_INLINE void compare(const ClassTile<T>& tile) {
    const std::int64_t P = tile.P, rows = tile.shots * P;
    multiply_products(tile);
    multiply_grams(tile);
    inner = square_s = square_q = Value{};
    for (std::int64_t j = 0; j < P; ++j) {
      inner += products_[j] * mean_b_[j];
      square_q += query_sums_[j] * mean_b_[j];
    }
    for (std::int64_t r = 0; r < rows; ++r) square_s += support_sums_[r] * a_[r];
    inner *= T{1} / static_cast<T>(rows * P);
    square_s *= T{1} / static_cast<T>(rows * rows);
    square_q *= T{1} / static_cast<T>(P * P);
  }

  // Adds m / way to weights [P, scale_step].
  LWFM_INLINE void add_mean_weights(const ClassTile<T>& tile, std::int64_t way, T* weights) {
    const T share = T{1} / static_cast<T>(way);
    for (std::int64_t j = 0; j < tile.P; ++j) {
      lanes_at<Queries>(weights + j * tile.scale_step) += mean_b_[j] * share;
    }
  }

  // After read_weights. `count` queries have gradients.
  LWFM_INLINE void backward(const ClassTile<T>& tile, int count, const ClassTileGradient<T>& to) {
    const std::int64_t P = tile.P, rows = tile.shots * P;
    const Value by_inner = lanes_at<Queries>(to.inner) * (T{1} / static_cast<T>(rows * P));
    const Value by_support = lanes_at<Queries>(to.square_s) * (T{2} / static_cast<T>(rows * rows));
    const Value by_query = lanes_at<Queries>(to.square_q) * (T{1} / static_cast<T>(P * P));
    multiply_products(tile);
    multiply_grams(tile);
    for (std::int64_t j = 0; j < P; ++j) {  // of m, into products_
      products_[j] = by_inner * products_[j] + T{2} * by_query * query_sums_[j];
      if (to.mean_b != nullptr) products_[j] += lanes_at<Queries>(to.mean_b + j * tile.scale_step);
      for (std::int64_t i = 0; i < P; ++i) {
        lanes_at<Queries>(to.query_grams + (j * P + i) * tile.scale_step) +=
            by_query * mean_b_[j] * mean_b_[i];
      }
    }
    for (std::int64_t k = 0; k < tile.shots; ++k) {
      differentiate_image(tile, k, by_inner, by_support, count, to);
    }
  }

 private:
  LWFM_INLINE void reserve(const ClassTile<T>& tile) {
    const std::int64_t rows = tile.shots * tile.P;
    for (Array* of_rows : {&a_, &b_, &support_sums_}) of_rows->resize(rows);
    for (Array* of_columns : {&mean_b_, &products_, &query_sums_}) of_columns->resize(tile.P);
  }

  static LWFM_INLINE AdjacentBlocks<T> blocks_of(const ClassTile<T>& tile, std::int64_t k) {
    const std::int64_t P = tile.P, step = P * tile.queries;
    return {tile.raw + k * P * step,
            P,
            P,
            step,
            tile.queries,
            tile.row_scales + k * P,
            tile.column_scales,
            tile.scale_step};
  }

  LWFM_INLINE void average(const ClassTile<T>& tile) {
    const T share = T{1} / static_cast<T>(tile.shots);
    mean_b_.clear();
    for (std::int64_t k = 0; k < tile.shots; ++k) {
      for (std::int64_t j = 0; j < tile.P; ++j) mean_b_[j] += b_[k * tile.P + j];
    }
    for (std::int64_t j = 0; j < tile.P; ++j) mean_b_[j] *= share;
  }

  // products_ = sum_k R_k^T a_k
  LWFM_INLINE void multiply_products(const ClassTile<T>& tile) {
    const std::int64_t P = tile.P;
    products_.clear();
    const T* raw = tile.raw;
    for (std::int64_t r = 0; r < tile.shots * P; ++r) {
      const Value a = a_[r];
      for (std::int64_t j = 0; j < P; ++j, raw += tile.queries) {
        products_[j] += a * lanes_at<Queries>(raw);
      }
    }
  }

  // support_sums_ = G a, query_sums_ = H m
  LWFM_INLINE void multiply_grams(const ClassTile<T>& tile) {
    const std::int64_t P = tile.P, rows = tile.shots * P;
    support_sums_.clear();
    query_sums_.clear();
    const T* gram = tile.gram;
    for (std::int64_t r = 0; gram != nullptr && r < rows; ++r) {
      const Value a = a_[r];
      for (std::int64_t n = 0; n < rows; ++n) support_sums_[n] += a * *gram++;
    }
    for (std::int64_t r = 0; tile.class_sums != nullptr && r < rows; ++r) {
      support_sums_[r] = lanes_at<Queries>(tile.class_sums + r * tile.queries);
    }
    const T* query_gram = tile.query_grams;
    for (std::int64_t j = 0; j < P; ++j) {
      const Value m = mean_b_[j];
      for (std::int64_t i = 0; i < P; ++i, query_gram += tile.scale_step) {
        query_sums_[i] += m * lanes_at<Queries>(query_gram);
      }
    }
  }

  LWFM_INLINE void differentiate_image(const ClassTile<T>& tile, std::int64_t k,
                                       const Value& by_inner, const Value& by_support, int count,
                                       const ClassTileGradient<T>& to) {
    const std::int64_t P = tile.P, step = P * tile.queries;
    const AdjacentBlocks<T> blocks = blocks_of(tile, k);
    if (tile.weighs()) {
      const T share = T{1} / static_cast<T>(tile.shots);
      weights_.read(blocks);
      for (std::int64_t i = 0; i < P; ++i) {
        Value sum{};
        for (std::int64_t j = 0; j < P; ++j) {
          sum += lanes_at<Queries>(blocks.raw + i * step + j * tile.queries) * mean_b_[j];
        }
        weights_.a_grad()[i] = by_inner * sum + by_support * support_sums_[k * P + i];
        weights_.b_grad()[i] = products_[i] * share;
      }
      weights_.differentiate(tile.temperature);
      add_square_gradients(blocks, count, to.row_squares + k * P, to.column_squares);
    }
    for (std::int64_t i = 0; i < P; ++i) {
      const Value factor = by_inner * a_[k * P + i];
      T* raw_grad = to.raw + (k * P + i) * to.raw_step;
      for (std::int64_t j = 0; j < P; ++j, raw_grad += tile.queries) {
        Value grad = factor * mean_b_[j];
        if (tile.weighs()) grad += weights_.raw_grad()[i * P + j];
        write_lanes<Queries>(grad, count, raw_grad);
      }
    }
  }

  // The scales are (square + eps)^(-1/2).
  LWFM_INLINE void add_square_gradients(const AdjacentBlocks<T>& blocks, int count, T* row_squares,
                                        T* column_squares) {
    const T* of_rows = reinterpret_cast<const T*>(weights_.a_grad());
    for (std::int64_t i = 0; i < blocks.rows; ++i) {
      const T scale = blocks.row_scales[i];
      T sum{0};
      for (int lane = 0; lane < count; ++lane) sum += of_rows[i * Queries::kWidth + lane];
      row_squares[i] -= T{0.5} * scale * scale * scale * sum;
    }
    for (std::int64_t j = 0; j < blocks.columns; ++j) {
      const Value scale = lanes_at<Queries>(blocks.column_scales + j * blocks.scale_step);
      lanes_at<Queries>(column_squares + j * blocks.scale_step) -=
          T{0.5} * scale * scale * scale * weights_.b_grad()[j];
    }
  }

  typename Queries::Weights weights_;
  Array a_, b_, support_sums_;            // [K P]
  Array mean_b_, products_, query_sums_;  // [P]
};

}  // namespace lwfm
