// What lwfm::class_terms and its backward check and allocate, on any device; the contract is in
// class_terms.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matching/class_images.h"
#include "tensor_views.h"

namespace lwfm {

// The inputs of both passes, checked and contiguous.
struct ClassInputs {
  Tensor a, b, support, query, images, begin;
  std::int64_t Q, S, P, M, C, way;

  ClassInputs(const Tensor& a_, const Tensor& b_, const Tensor& support_, const Tensor& query_,
              const Tensor& images_, const Tensor& begin_)
      : a(contiguous(a_, 3)),
        b(contiguous(b_, 3)),
        support(contiguous(support_, 3)),
        query(contiguous(query_, 3)),
        images(contiguous(images_, 1)),
        begin(contiguous(begin_, 1)),
        Q(query.size(0)),
        S(support.size(0)),
        P(support.size(1)),
        M(query.size(1)),
        C(query.size(2)),
        way(begin.size(0) - 1) {
    const ScalarType dtype = a.scalar_type();
    require((dtype == ScalarType::Float || dtype == ScalarType::Double) &&
                b.scalar_type() == dtype && support.scalar_type() == dtype &&
                query.scalar_type() == dtype,
            "a, b, support and query must have one dtype, float32 or float64");
    require(has_shape(a, {Q, S, P}) && has_shape(b, {Q, S, M}) && support.size(2) == C,
            "a must be [Q, S, P], b [Q, S, M], support [S, P, C] and query [Q, M, C]");
    require(images.scalar_type() == ScalarType::Long && begin.scalar_type() == ScalarType::Long &&
                way >= 0 && images.size(0) == S,
            "images must be int64 [S] and begin int64 [way + 1]");
  }

  ClassImages classes() const {
    return {way, data_of<const std::int64_t>(begin), data_of<const std::int64_t>(images)};
  }

  // What a kernel on the host may rely on.
  void require_lists() const {
    const ClassImages list = classes();
    bool valid = list.begin[0] == 0 && list.begin[way] == S;
    for (std::int64_t c = 0; c < way; ++c) valid = valid && list.begin[c] < list.begin[c + 1];
    for (std::int64_t k = 0; k < S; ++k) {
      valid = valid && list.images[k] >= 0 && list.images[k] < S;
    }
    require(valid, "images and begin must list every class with at least one image");
  }

 private:
  static Tensor contiguous(const Tensor& tensor, std::int64_t dim) {
    require(tensor.dim() == dim, "expected a tensor of another rank");
    return torch::stable::contiguous(tensor);
  }
};

// What the operator returns.
struct ClassOutputs {
  Tensor inner, square_s, square_q, features;
};

inline ClassOutputs empty_terms(const ClassInputs& in) {
  const auto empty = [&](std::int64_t columns) {
    return torch::stable::new_empty(in.a, {in.Q, columns}, in.a.scalar_type());
  };
  return {empty(in.way), empty(in.way), empty(in.way), empty(in.C)};
}

// Gradients of what the operator returned, contiguous.
inline ClassOutputs require_term_gradients(const ClassInputs& in, const ClassOutputs& grads) {
  const ClassOutputs from{
      torch::stable::contiguous(grads.inner), torch::stable::contiguous(grads.square_s),
      torch::stable::contiguous(grads.square_q), torch::stable::contiguous(grads.features)};
  const ScalarType dtype = in.a.scalar_type();
  for (const Tensor* grad : {&from.inner, &from.square_s, &from.square_q}) {
    require(has_shape(*grad, {in.Q, in.way}) && grad->scalar_type() == dtype,
            "gradients must be [Q, way] of the dtype of a");
  }
  require(has_shape(from.features, {in.Q, in.C}) && from.features.scalar_type() == dtype,
          "the gradient of features must be [Q, C] of the dtype of a");
  return from;
}

// The gradients of the inputs, to be written.
struct ClassInputGradients {
  Tensor a, b, support, query;

  explicit ClassInputGradients(const ClassInputs& in)
      : a(torch::stable::empty_like(in.a)),
        b(torch::stable::empty_like(in.b)),
        support(torch::stable::empty_like(in.support)),
        query(torch::stable::empty_like(in.query)) {}
};

// [Q, way, C]
inline Tensor empty_mean_gradients(const ClassInputs& in) {
  return torch::stable::new_empty(in.a, {in.Q, in.way, in.C}, in.a.scalar_type());
}

}  // namespace lwfm
