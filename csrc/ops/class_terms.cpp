// lwfm::class_terms: a [Q, S, P] and b [Q, S, M], support [S, P, C], query [Q, M, C], and the
// classes as pictures [S] sorted by class and begin [way + 1]
//   -> inner, square_s, square_q [Q, way] and features [Q, C]; see core/class_terms.h.
#include "core/class_terms.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "blocks.h"

namespace {

using lwfm::ClassPictures;
using lwfm::data_of;
using lwfm::LayerPictures;
using lwfm::ScalarType;
using torch::stable::Tensor;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The inputs of both passes, checked and contiguous.
struct Inputs {
  Tensor a, b, support, query, pictures, begin;
  std::int64_t Q, S, P, M, C, way;

  Inputs(const Tensor& a_, const Tensor& b_, const Tensor& support_, const Tensor& query_,
         const Tensor& pictures_, const Tensor& begin_)
      : a(contiguous(a_, 3)),
        b(contiguous(b_, 3)),
        support(contiguous(support_, 3)),
        query(contiguous(query_, 3)),
        pictures(contiguous(pictures_, 1)),
        begin(contiguous(begin_, 1)),
        Q(query.size(0)),
        S(support.size(0)),
        P(support.size(1)),
        M(query.size(1)),
        C(query.size(2)),
        way(begin.size(0) - 1) {
    const ScalarType dtype = a.scalar_type();
    lwfm::require((dtype == ScalarType::Float || dtype == ScalarType::Double) &&
                      b.scalar_type() == dtype && support.scalar_type() == dtype &&
                      query.scalar_type() == dtype,
                  "a, b, support and query must have one dtype, float32 or float64");
    lwfm::require(has_shape(a, {Q, S, P}) && has_shape(b, {Q, S, M}) && support.size(2) == C,
                  "a must be [Q, S, P], b [Q, S, M], support [S, P, C] and query [Q, M, C]");
    require_classes();
  }

  template <class T>
  LayerPictures<T> layer() const {
    return {data_of<const T>(support), data_of<const T>(query), S, P, M, C};
  }

  ClassPictures classes() const {
    return {way, data_of<const std::int64_t>(begin), data_of<const std::int64_t>(pictures)};
  }

  static bool has_shape(const Tensor& tensor, const std::vector<std::int64_t>& sizes) {
    const auto actual = tensor.sizes();
    return std::equal(actual.begin(), actual.end(), sizes.begin(), sizes.end());
  }

 private:
  static Tensor contiguous(const Tensor& tensor, std::int64_t dim) {
    lwfm::require(tensor.dim() == dim, "expected a tensor of another rank");
    return torch::stable::contiguous(tensor);
  }

  void require_classes() const {
    lwfm::require(pictures.scalar_type() == ScalarType::Long &&
                      begin.scalar_type() == ScalarType::Long && way >= 0 && pictures.size(0) == S,
                  "pictures must be int64 [S] and begin int64 [way + 1]");
    const ClassPictures list = classes();
    bool valid = list.begin[0] == 0 && list.begin[way] == S;
    for (std::int64_t c = 0; c < way; ++c) valid = valid && list.begin[c] < list.begin[c + 1];
    for (std::int64_t k = 0; k < S; ++k) {
      valid = valid && list.pictures[k] >= 0 && list.pictures[k] < S;
    }
    lwfm::require(valid, "pictures and begin must list every class with at least one picture");
  }
};

template <class T>
void compare_all(const Inputs& in, const Four& outputs) {
  const auto& [inner, square_s, square_q, features] = outputs;
  T* const data[] = {data_of<T>(inner), data_of<T>(square_s), data_of<T>(square_q),
                     data_of<T>(features)};
  torch::stable::parallel_for(0, in.Q, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local lwfm::ClassTerms<T> workspace;
    for (std::int64_t q = begin; q < end; ++q) {
      const lwfm::QueryTerms<T> terms{data_of<const T>(in.a) + q * in.S * in.P,
                                      data_of<const T>(in.b) + q * in.S * in.M,
                                      data[0] + q * in.way,
                                      data[1] + q * in.way,
                                      data[2] + q * in.way,
                                      data[3] + q * in.C};
      lwfm::vectorised(
          [&]() LWFM_INLINE_LAMBDA { workspace.forward(in.layer<T>(), in.classes(), q, terms); });
    }
  });
}

Four class_terms_cpu(const Tensor& a, const Tensor& b, const Tensor& support, const Tensor& query,
                     const Tensor& pictures, const Tensor& begin) {
  const Inputs in(a, b, support, query, pictures, begin);
  const auto empty = [&](std::int64_t columns) {
    return torch::stable::new_empty(in.a, {in.Q, columns}, in.a.scalar_type());
  };
  const Four outputs{empty(in.way), empty(in.way), empty(in.way), empty(in.C)};
  const auto compare =
      in.a.scalar_type() == ScalarType::Float ? compare_all<float> : compare_all<double>;
  compare(in, outputs);
  return outputs;
}

struct OutputGradients {
  Tensor inner, square_s, square_q, features;
};

template <class T>
void differentiate_queries(const Inputs& in, const OutputGradients& from, const Four& to,
                           const Tensor& mean_grads) {
  const auto& [a_grad, b_grad, support_grad, query_grad] = to;
  T* const data[] = {data_of<T>(a_grad), data_of<T>(b_grad), data_of<T>(query_grad),
                     data_of<T>(mean_grads)};
  torch::stable::parallel_for(0, in.Q, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local lwfm::ClassTerms<T> workspace;
    for (std::int64_t q = begin; q < end; ++q) {
      const lwfm::QueryTermsGradient<T> terms{data_of<const T>(in.a) + q * in.S * in.P,
                                              data_of<const T>(in.b) + q * in.S * in.M,
                                              data_of<const T>(from.inner) + q * in.way,
                                              data_of<const T>(from.square_s) + q * in.way,
                                              data_of<const T>(from.square_q) + q * in.way,
                                              data_of<const T>(from.features) + q * in.C,
                                              data[0] + q * in.S * in.P,
                                              data[1] + q * in.S * in.M,
                                              data[2] + q * in.M * in.C,
                                              data[3] + q * in.way * in.C};
      lwfm::vectorised(
          [&]() LWFM_INLINE_LAMBDA { workspace.backward(in.layer<T>(), in.classes(), q, terms); });
    }
  });
}

template <class T>
void differentiate_supports(const Inputs& in, const Tensor& support_grad,
                            const Tensor& mean_grads) {
  const ClassPictures classes = in.classes();
  std::vector<std::int64_t> class_of(static_cast<std::size_t>(in.S));
  for (std::int64_t c = 0; c < in.way; ++c) {
    for (std::int64_t k = classes.begin[c]; k < classes.begin[c + 1]; ++k) {
      class_of[static_cast<std::size_t>(classes.pictures[k])] = c;
    }
  }
  T* const grad = data_of<T>(support_grad);
  torch::stable::parallel_for(0, in.S, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) {
      lwfm::vectorised([&]() LWFM_INLINE_LAMBDA {
        lwfm::ClassTerms<T>::support_gradient(
            in.layer<T>(), classes, class_of[static_cast<std::size_t>(s)], s,
            data_of<const T>(in.a), data_of<const T>(mean_grads), in.Q, grad + s * in.P * in.C);
      });
    }
  });
}

Four class_terms_backward_cpu(const Tensor& inner, const Tensor& square_s, const Tensor& square_q,
                              const Tensor& features, const Tensor& a, const Tensor& b,
                              const Tensor& support, const Tensor& query, const Tensor& pictures,
                              const Tensor& begin) {
  const Inputs in(a, b, support, query, pictures, begin);
  const OutputGradients from{torch::stable::contiguous(inner), torch::stable::contiguous(square_s),
                             torch::stable::contiguous(square_q),
                             torch::stable::contiguous(features)};
  for (const Tensor* grad : {&from.inner, &from.square_s, &from.square_q}) {
    lwfm::require(
        Inputs::has_shape(*grad, {in.Q, in.way}) && grad->scalar_type() == in.a.scalar_type(),
        "gradients must be [Q, way] of the dtype of a");
  }
  lwfm::require(Inputs::has_shape(from.features, {in.Q, in.C}) &&
                    from.features.scalar_type() == in.a.scalar_type(),
                "the gradient of features must be [Q, C] of the dtype of a");
  const Four to{torch::stable::empty_like(in.a), torch::stable::empty_like(in.b),
                torch::stable::empty_like(in.support), torch::stable::empty_like(in.query)};
  const Tensor mean_grads =
      torch::stable::new_empty(in.a, {in.Q, in.way, in.C}, in.a.scalar_type());
  if (in.a.scalar_type() == ScalarType::Float) {
    differentiate_queries<float>(in, from, to, mean_grads);
    differentiate_supports<float>(in, std::get<2>(to), mean_grads);
  } else {
    differentiate_queries<double>(in, from, to, mean_grads);
    differentiate_supports<double>(in, std::get<2>(to), mean_grads);
  }
  return to;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("class_terms", TORCH_BOX(&class_terms_cpu));
  library.impl("class_terms_backward", TORCH_BOX(&class_terms_backward_cpu));
}
