// The weighted class means that the base term compares, from the weights of layer-wise embedding.
// For one query and a class with the support pictures k:
//
//   m_s = mean_k (1/P) sum_i a_ki s_ki            m_q = (1/M) sum_j (mean_k b_kj) q_j
//   inner = m_s . m_q     square_s = |m_s|^2      square_q = |m_q|^2
//   feature = mean of m_q over the classes
//
// Only one mean of each side exists at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "class_pictures.h"
#include "rows.h"
#include "vectorised.h"

namespace lwfm {

// Positions of all pictures of a layer: support [S, P, C], query [Q, M, C], contiguous.
template <class T>
struct LayerPictures {
  const T* support;
  const T* query;
  std::int64_t S, P, M, C;
};

// What one query reads and writes.
template <class T>
struct QueryTerms {
  const T* a;                      // [S, P]
  const T* b;                      // [S, M]
  T *inner, *square_s, *square_q;  // [way]
  T* feature;                      // [C]
};

template <class T>
struct QueryTermsGradient {
  const T* a;
  const T* b;
  const T *inner, *square_s, *square_q;  // [way], of what the query wrote
  const T* feature;                      // [C]
  T* a_grad;                             // [S, P]
  T* b_grad;                             // [S, M]
  T* query_grad;                         // [M, C]
  T* mean_grad;                          // [way, C], of m_s
};

// Memory of one thread and the arithmetic in it.
template <class T>
class ClassTerms {
 public:
  LWFM_INLINE void forward(const LayerPictures<T>& layer, const ClassPictures& classes,
                           std::int64_t query, const QueryTerms<T>& terms) {
    std::fill_n(terms.feature, layer.C, T{0});
    for (std::int64_t c = 0; c < classes.way; ++c) {
      read_class(layer, classes, c, terms.a, terms.b);
      average(layer, query);
      terms.inner[c] = inner_product(m_s_.data(), m_q_.data(), layer.C);
      terms.square_s[c] = inner_product(m_s_.data(), m_s_.data(), layer.C);
      terms.square_q[c] = inner_product(m_q_.data(), m_q_.data(), layer.C);
      add_multiple(m_q_.data(), T{1} / static_cast<T>(classes.way), layer.C, terms.feature);
    }
  }

  LWFM_INLINE void backward(const LayerPictures<T>& layer, const ClassPictures& classes,
                            std::int64_t query, const QueryTermsGradient<T>& to) {
    const std::int64_t C = layer.C;
    std::fill_n(to.query_grad, layer.M * C, T{0});
    for (std::int64_t c = 0; c < classes.way; ++c) {
      read_class(layer, classes, c, to.a, to.b);
      average(layer, query);
      T* const m_s_grad = to.mean_grad + c * C;
      std::fill_n(m_s_grad, C, T{0});
      add_multiple(m_q_.data(), to.inner[c], C, m_s_grad);
      add_multiple(m_s_.data(), 2 * to.square_s[c], C, m_s_grad);
      m_q_grad_.assign(m_q_.size(), T{0});
      add_multiple(m_s_.data(), to.inner[c], C, m_q_grad_.data());
      add_multiple(m_q_.data(), 2 * to.square_q[c], C, m_q_grad_.data());
      add_multiple(to.feature, T{1} / static_cast<T>(classes.way), C, m_q_grad_.data());
      write_class(layer, classes, c, query, to);
    }
  }

  // grad [P, C] of support picture s of class c from the gradients of m_s, mean_grads [Q, way, C],
  // and the weights a [Q, S, P] of all queries.
  static LWFM_INLINE void support_gradient(const LayerPictures<T>& layer,
                                           const ClassPictures& classes, std::int64_t c,
                                           std::int64_t s, const T* a, const T* mean_grads,
                                           std::int64_t queries, T* grad) {
    const T share = T{1} / static_cast<T>(classes.shots(c) * layer.P);
    std::fill_n(grad, layer.P * layer.C, T{0});
    for (std::int64_t i = 0; i < layer.P; ++i) {
      const auto row = [&](std::int64_t q) LWFM_INLINE_LAMBDA {
        return mean_grads + (q * classes.way + c) * layer.C;
      };
      const auto weight = [&](std::int64_t q) LWFM_INLINE_LAMBDA {
        return share * a[(q * layer.S + s) * layer.P + i];
      };
      add_multiples(row, weight, queries, layer.C, grad + i * layer.C);
    }
  }

 private:
  // Lists the support positions of class c with their weights, and averages those of the query.
  LWFM_INLINE void read_class(const LayerPictures<T>& layer, const ClassPictures& classes,
                              std::int64_t c, const T* a, const T* b) {
    const T s_share = T{1} / static_cast<T>(classes.shots(c) * layer.P);
    const T q_share = T{1} / static_cast<T>(classes.shots(c) * layer.M);
    rows_.clear();
    row_weights_.clear();
    column_weights_.assign(static_cast<std::size_t>(layer.M), T{0});
    for (std::int64_t k = classes.begin[c]; k < classes.begin[c + 1]; ++k) {
      const std::int64_t s = classes.pictures[k];
      for (std::int64_t i = 0; i < layer.P; ++i) {
        rows_.push_back(layer.support + (s * layer.P + i) * layer.C);
        row_weights_.push_back(a[s * layer.P + i] * s_share);
      }
      for (std::int64_t j = 0; j < layer.M; ++j) {
        column_weights_[static_cast<std::size_t>(j)] += b[s * layer.M + j] * q_share;
      }
    }
  }

  // The means of the class that was read.
  LWFM_INLINE void average(const LayerPictures<T>& layer, std::int64_t query) {
    m_s_.assign(static_cast<std::size_t>(layer.C), T{0});
    m_q_.assign(static_cast<std::size_t>(layer.C), T{0});
    const T* first = layer.query + query * layer.M * layer.C;
    add_multiples([&](std::int64_t n) LWFM_INLINE_LAMBDA { return rows_.data()[n]; },
                  [&](std::int64_t n) LWFM_INLINE_LAMBDA { return row_weights_.data()[n]; },
                  static_cast<std::int64_t>(rows_.size()), layer.C, m_s_.data());
    add_multiples([&](std::int64_t j) LWFM_INLINE_LAMBDA { return first + j * layer.C; },
                  [&](std::int64_t j) LWFM_INLINE_LAMBDA { return column_weights_.data()[j]; },
                  layer.M, layer.C, m_q_.data());
  }

  // The gradients of the weights of class c, and what it adds to the gradient of the query.
  LWFM_INLINE void write_class(const LayerPictures<T>& layer, const ClassPictures& classes,
                               std::int64_t c, std::int64_t query,
                               const QueryTermsGradient<T>& to) const {
    const std::int64_t C = layer.C;
    const T s_share = T{1} / static_cast<T>(classes.shots(c) * layer.P);
    const T q_share = T{1} / static_cast<T>(classes.shots(c) * layer.M);
    const T* const m_s_grad = to.mean_grad + c * C;
    const T* const* row = rows_.data();
    for (std::int64_t k = classes.begin[c]; k < classes.begin[c + 1]; ++k) {
      T* const a_grad = to.a_grad + classes.pictures[k] * layer.P;
      for (std::int64_t i = 0; i < layer.P; ++i) {
        a_grad[i] = s_share * inner_product(*row++, m_s_grad, C);
      }
    }
    for (std::int64_t j = 0; j < layer.M; ++j) {
      const T* const q = layer.query + (query * layer.M + j) * C;
      const T grad = q_share * inner_product(q, m_q_grad_.data(), C);
      for (std::int64_t k = classes.begin[c]; k < classes.begin[c + 1]; ++k) {
        to.b_grad[classes.pictures[k] * layer.M + j] = grad;
      }
      add_multiple(m_q_grad_.data(), column_weights_[static_cast<std::size_t>(j)], C,
                   to.query_grad + j * C);
    }
  }

  std::vector<const T*> rows_;           // [K P], the support positions of a class
  std::vector<T> row_weights_;           // [K P]
  std::vector<T> column_weights_;        // [M]
  std::vector<T> m_s_, m_q_, m_q_grad_;  // [C]
};

}  // namespace lwfm
