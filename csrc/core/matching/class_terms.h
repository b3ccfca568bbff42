// The weighted class means that the base term compares, from the weights of layer-wise embedding.
// For one query and a class with the support images k:
//
//   m_s = mean_k (1/P) sum_i a_ki s_ki            m_q = (1/M) sum_j (mean_k b_kj) q_j
//   inner = m_s . m_q     square_s = |m_s|^2      square_q = |m_q|^2
//   feature = mean of m_q over the classes
//
// A few queries and a few classes are processed at a time, so that each image is read once for
// all of them and no more means exist than those.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/matching/class_images.h"
#include "core/simd/dispatch.h"
#include "core/simd/row_products.h"
#include "core/simd/rows.h"

namespace lwfm {

// Positions of all images of a layer: support [S, P, C], query [Q, M, C], contiguous.
template <class T>
struct LayerImages {
  const T* support;
  const T* query;
  std::int64_t S, P, M, C;

  const T* position_of_query(std::int64_t q, std::int64_t j) const {
    return query + (q * M + j) * C;
  }
};

// Inputs and outputs of the per-query pass.
template <class T>
struct QueryTerms {
  const T* a;                      // [Q, S, P]
  const T* b;                      // [Q, S, M]
  T *inner, *square_s, *square_q;  // [Q, way]
  T* feature;                      // [Q, C]
};

template <class T>
struct QueryTermsGradient {
  const T* a;
  const T* b;
  const T *inner, *square_s, *square_q;  // [Q, way], of what the queries wrote
  const T* feature;                      // [Q, C]
  T* a_grad;                             // [Q, S, P]
  T* b_grad;                             // [Q, S, M]
  T* query_grad;                         // [Q, M, C]
  T* mean_grad;                          // [Q, way, C], of m_s
};

// Queries first, ..., first + count - 1.
struct QueryRange {
  std::int64_t first, count;
};

// Memory of one thread and the arithmetic in it.
template <class T>
class ClassTerms {
 public:
  // Most queries, and classes, processed at a time.
  static constexpr std::int64_t kTile = 8;

  template <int kBytes>
  LWFM_INLINE void forward(const LayerImages<T>& layer, const ClassImages& classes,
                           const QueryRange& queries, const QueryTerms<T>& terms) {
    std::fill_n(terms.feature + queries.first * layer.C, queries.count * layer.C, T{0});
    for (std::int64_t c = 0; c < classes.way; c += kTile) {
      const std::int64_t count = std::min(kTile, classes.way - c);
      average_queries<kBytes>(layer, classes, c, count, queries, terms.b);
      for (std::int64_t n = 0; n < count; ++n) {
        average_class<kBytes>(layer, classes, c + n, queries, terms.a);
        for (std::int64_t t = 0; t < queries.count; ++t) {
          const std::int64_t q = queries.first + t, at = q * classes.way + c + n;
          const T *m_s = m_s_.data() + t * layer.C, *m_q = mean_of_query(t, n, layer.C);
          terms.inner[at] = inner_product<kBytes>(m_s, m_q, layer.C);
          terms.square_s[at] = inner_product<kBytes>(m_s, m_s, layer.C);
          terms.square_q[at] = inner_product<kBytes>(m_q, m_q, layer.C);
          add_multiple<kBytes>(m_q, T{1} / static_cast<T>(classes.way), layer.C,
                               terms.feature + q * layer.C);
        }
      }
    }
  }

  template <int kBytes>
  LWFM_INLINE void backward(const LayerImages<T>& layer, const ClassImages& classes,
                            const QueryRange& queries, const QueryTermsGradient<T>& to) {
    std::fill_n(to.query_grad + queries.first * layer.M * layer.C,
                queries.count * layer.M * layer.C, T{0});
    for (std::int64_t c = 0; c < classes.way; c += kTile) {
      const std::int64_t count = std::min(kTile, classes.way - c);
      average_queries<kBytes>(layer, classes, c, count, queries, to.b);
      for (std::int64_t n = 0; n < count; ++n) {
        average_class<kBytes>(layer, classes, c + n, queries, to.a);
        for (std::int64_t t = 0; t < queries.count; ++t) {
          differentiate_means<kBytes>(layer, classes, c + n, queries.first + t,
                                      m_s_.data() + t * layer.C, mean_of_query(t, n, layer.C), to);
        }
        write_class<kBytes>(layer, classes, c + n, queries, to);
      }
      for (std::int64_t t = 0; t < queries.count; ++t) {
        write_query<kBytes>(layer, classes, c, count, queries.first + t, t, to);
      }
    }
  }

  // grad [P, C] of support image s of class c from the gradients of m_s, mean_grads [Q, way, C],
  // and the weights a [Q, S, P] of all queries.
  template <int kBytes>
  LWFM_INLINE void support_gradient(const LayerImages<T>& layer, const ClassImages& classes,
                                    std::int64_t c, std::int64_t s, const T* a, const T* mean_grads,
                                    std::int64_t queries, T* grad) {
    const T share = T{1} / static_cast<T>(classes.shots(c) * layer.P);
    weights_.resize(static_cast<std::size_t>(layer.P * queries));
    for (std::int64_t q = 0; q < queries; ++q) {
      const T* const of_image = a + (q * layer.S + s) * layer.P;
      for (std::int64_t i = 0; i < layer.P; ++i) weights_[i * queries + q] = share * of_image[i];
    }
    std::fill_n(grad, layer.P * layer.C, T{0});
    const auto row = [&](std::int64_t q) LWFM_INLINE_LAMBDA {
      return mean_grads + (q * classes.way + c) * layer.C;
    };
    add_weighted_rows<kBytes, T>(row, queries, {weights_.data(), layer.P, queries}, layer.C,
                                 {grad, layer.P, layer.C});
  }

 private:
  T* mean_of_query(std::int64_t t, std::int64_t n, std::int64_t C) {
    return m_q_.data() + (t * kTile + n) * C;
  }
  T* column_weights(std::int64_t t, std::int64_t n, std::int64_t M) {
    return column_weights_.data() + (t * kTile + n) * M;
  }

  // m_q of each of the queries for classes c, ..., c + count - 1.
  template <int kBytes>
  LWFM_INLINE void average_queries(const LayerImages<T>& layer, const ClassImages& classes,
                                   std::int64_t c, std::int64_t count, const QueryRange& queries,
                                   const T* b) {
    const std::int64_t M = layer.M, C = layer.C;
    column_weights_.assign(static_cast<std::size_t>(kTile * kTile * M), T{0});
    m_q_.assign(static_cast<std::size_t>(kTile * kTile * C), T{0});
    for (std::int64_t t = 0; t < queries.count; ++t) {
      const std::int64_t q = queries.first + t;
      for (std::int64_t n = 0; n < count; ++n) {
        T* const weights = column_weights(t, n, M);
        const T share = T{1} / static_cast<T>(classes.shots(c + n) * M);
        for (std::int64_t k = classes.begin[c + n]; k < classes.begin[c + n + 1]; ++k) {
          const T* const of_pair = b + (q * layer.S + classes.images[k]) * M;
          for (std::int64_t j = 0; j < M; ++j) weights[j] += of_pair[j] * share;
        }
      }
      add_weighted_rows<kBytes, T>(
          [&](std::int64_t j) LWFM_INLINE_LAMBDA { return layer.position_of_query(q, j); }, M,
          {column_weights(t, 0, M), count, M}, C, {mean_of_query(t, 0, C), count, C});
    }
  }

  // m_s of class c for each of the queries; leaves the support positions in rows_.
  template <int kBytes>
  LWFM_INLINE void average_class(const LayerImages<T>& layer, const ClassImages& classes,
                                 std::int64_t c, const QueryRange& queries, const T* a) {
    const std::int64_t P = layer.P, C = layer.C, count = classes.shots(c) * P;
    const T share = T{1} / static_cast<T>(count);
    rows_.resize(static_cast<std::size_t>(count));
    weights_.resize(static_cast<std::size_t>(queries.count * count));
    m_s_.assign(static_cast<std::size_t>(kTile * C), T{0});
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t s = classes.images[classes.begin[c] + n / P], i = n % P;
      rows_[static_cast<std::size_t>(n)] = layer.support + (s * P + i) * C;
      for (std::int64_t t = 0; t < queries.count; ++t) {
        weights_[t * count + n] = a[((queries.first + t) * layer.S + s) * P + i] * share;
      }
    }
    add_weighted_rows<kBytes, T>([&](std::int64_t n) LWFM_INLINE_LAMBDA { return rows_.data()[n]; },
                                 count, {weights_.data(), queries.count, count}, C,
                                 {m_s_.data(), queries.count, C});
  }

  // The gradient of m_s, and in the place of m_q its own.
  template <int kBytes>
  LWFM_INLINE void differentiate_means(const LayerImages<T>& layer, const ClassImages& classes,
                                       std::int64_t c, std::int64_t q, const T* m_s, T* m_q,
                                       const QueryTermsGradient<T>& to) {
    const std::int64_t C = layer.C, at = q * classes.way + c;
    T* const m_s_grad = to.mean_grad + at * C;
    const T* const feature = to.feature + q * C;
    const T inner = to.inner[at], twice_s = 2 * to.square_s[at], twice_q = 2 * to.square_q[at];
    const T share = T{1} / static_cast<T>(classes.way);
    for (std::int64_t k = 0; k < C; ++k) {
      m_s_grad[k] = inner * m_q[k] + twice_s * m_s[k];
      m_q[k] = inner * m_s[k] + twice_q * m_q[k] + share * feature[k];
    }
  }

  // The gradients of a for the support images of class c.
  template <int kBytes>
  LWFM_INLINE void write_class(const LayerImages<T>& layer, const ClassImages& classes,
                               std::int64_t c, const QueryRange& queries,
                               const QueryTermsGradient<T>& to) {
    const std::int64_t P = layer.P, C = layer.C, count = classes.shots(c) * P;
    const T share = T{1} / static_cast<T>(count);
    const std::int64_t stride = classes.way * C;
    products_with_rows<kBytes, T>(
        [&](std::int64_t n) LWFM_INLINE_LAMBDA { return rows_.data()[n]; }, count,
        {to.mean_grad + (queries.first * classes.way + c) * C, queries.count, stride}, C,
        {weights_.data(), queries.count, count});
    for (std::int64_t t = 0; t < queries.count; ++t) {
      for (std::int64_t n = 0; n < count; ++n) {
        const std::int64_t s = classes.images[classes.begin[c] + n / P];
        to.a_grad[((queries.first + t) * layer.S + s) * P + n % P] =
            share * weights_[t * count + n];
      }
    }
  }

  // The gradients of b of query q, the t-th of those processed, and what classes
  // c, ..., c + count - 1 add to that of its positions.
  template <int kBytes>
  LWFM_INLINE void write_query(const LayerImages<T>& layer, const ClassImages& classes,
                               std::int64_t c, std::int64_t count, std::int64_t q, std::int64_t t,
                               const QueryTermsGradient<T>& to) {
    const std::int64_t M = layer.M, C = layer.C;
    const T* const grads = mean_of_query(t, 0, C);
    weights_.resize(static_cast<std::size_t>(count * M));
    products_with_rows<kBytes, T>([&](std::int64_t j)
                                      LWFM_INLINE_LAMBDA { return layer.position_of_query(q, j); },
                                  M, {grads, count, C}, C, {weights_.data(), count, M});
    for (std::int64_t n = 0; n < count; ++n) {
      const T share = T{1} / static_cast<T>(classes.shots(c + n) * M);
      for (std::int64_t k = classes.begin[c + n]; k < classes.begin[c + n + 1]; ++k) {
        T* const b_grad = to.b_grad + (q * layer.S + classes.images[k]) * M;
        for (std::int64_t j = 0; j < M; ++j) b_grad[j] = share * weights_[n * M + j];
      }
    }
    for (std::int64_t n = 0; n < count; ++n) {
      for (std::int64_t j = 0; j < M; ++j) weights_[j * count + n] = column_weights(t, n, M)[j];
    }
    add_weighted_rows<kBytes, T>([&](std::int64_t n) LWFM_INLINE_LAMBDA { return grads + n * C; },
                                 count, {weights_.data(), M, count}, C,
                                 {to.query_grad + q * M * C, M, C});
  }

  std::vector<const T*> rows_;     // [K P], the support positions of a class
  std::vector<T> weights_;         // of rows, for each vector that they are summed to
  std::vector<T> column_weights_;  // [queries, classes, M]
  std::vector<T> m_s_;             // [queries, C] of one class
  std::vector<T> m_q_;             // [queries, classes, C]; in the backward pass their gradients
};

}  // namespace lwfm
