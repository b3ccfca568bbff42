// lwfm::class_terms: a [Q, S, P] and b [Q, S, M], support [S, P, C], query [Q, M, C], and the
// classes as pictures [S] sorted by class and begin [way + 1]
//   -> inner, square_s, square_q [Q, way] and features [Q, C]; see core/class_terms.h.
#include "core/class_terms.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "class_terms.h"

namespace {

using lwfm::ClassInputGradients;
using lwfm::ClassInputs;
using lwfm::ClassOutputs;
using lwfm::ClassPictures;
using lwfm::data_of;
using lwfm::LayerPictures;
using lwfm::ScalarType;
using torch::stable::Tensor;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class T>
LayerPictures<T> layer_of(const ClassInputs& in) {
  return {data_of<const T>(in.support), data_of<const T>(in.query), in.S, in.P, in.M, in.C};
}

template <class T>
void compare_all(const ClassInputs& in, const ClassOutputs& outputs) {
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
          [&]() LWFM_INLINE_LAMBDA { workspace.forward(layer_of<T>(in), in.classes(), q, terms); });
    }
  });
}

Four class_terms_cpu(const Tensor& a, const Tensor& b, const Tensor& support, const Tensor& query,
                     const Tensor& pictures, const Tensor& begin) {
  const ClassInputs in(a, b, support, query, pictures, begin);
  in.require_lists();
  const ClassOutputs outputs = lwfm::empty_terms(in);
  const auto compare =
      in.a.scalar_type() == ScalarType::Float ? compare_all<float> : compare_all<double>;
  compare(in, outputs);
  return {outputs.inner, outputs.square_s, outputs.square_q, outputs.features};
}

template <class T>
void differentiate_queries(const ClassInputs& in, const ClassOutputs& from,
                           const ClassInputGradients& to, const Tensor& mean_grads) {
  T* const data[] = {data_of<T>(to.a), data_of<T>(to.b), data_of<T>(to.query),
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
      lwfm::vectorised([&]() LWFM_INLINE_LAMBDA {
        workspace.backward(layer_of<T>(in), in.classes(), q, terms);
      });
    }
  });
}

template <class T>
void differentiate_supports(const ClassInputs& in, const Tensor& support_grad,
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
            layer_of<T>(in), classes, class_of[static_cast<std::size_t>(s)], s,
            data_of<const T>(in.a), data_of<const T>(mean_grads), in.Q, grad + s * in.P * in.C);
      });
    }
  });
}

Four class_terms_backward_cpu(const Tensor& inner, const Tensor& square_s, const Tensor& square_q,
                              const Tensor& features, const Tensor& a, const Tensor& b,
                              const Tensor& support, const Tensor& query, const Tensor& pictures,
                              const Tensor& begin) {
  const ClassInputs in(a, b, support, query, pictures, begin);
  in.require_lists();
  const ClassOutputs from = lwfm::require_term_gradients(in, {inner, square_s, square_q, features});
  const ClassInputGradients to(in);
  const Tensor mean_grads = lwfm::empty_mean_gradients(in);
  if (in.a.scalar_type() == ScalarType::Float) {
    differentiate_queries<float>(in, from, to, mean_grads);
    differentiate_supports<float>(in, to.support, mean_grads);
  } else {
    differentiate_queries<double>(in, from, to, mean_grads);
    differentiate_supports<double>(in, to.support, mean_grads);
  }
  return {to.a, to.b, to.support, to.query};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("class_terms", TORCH_BOX(&class_terms_cpu));
  library.impl("class_terms_backward", TORCH_BOX(&class_terms_backward_cpu));
}
