// lwfm::class_terms: a [Q, S, P] and b [Q, S, M], support [S, P, C], query [Q, M, C], and the
// classes as images [S] sorted by class and begin [way + 1]
//   -> inner, square_s, square_q [Q, way] and features [Q, C]; see core/matching/class_terms.h.
#include "core/matching/class_terms.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "class_terms.h"

namespace {

using lwfm::ClassImages;
using lwfm::ClassInputGradients;
using lwfm::ClassInputs;
using lwfm::ClassOutputs;
using lwfm::data_of;
using lwfm::LayerImages;
using lwfm::ScalarType;
using torch::stable::Tensor;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class T>
LayerImages<T> layer_of(const ClassInputs& in) {
  return {data_of<const T>(in.support), data_of<const T>(in.query), in.S, in.P, in.M, in.C};
}

// Calls work(workspace, range of queries) for all of them, on several threads.
template <class T, class Work>
void for_queries(std::int64_t queries, const Work& work) {
  constexpr std::int64_t kTile = lwfm::ClassTerms<T>::kTile;
  const std::int64_t tiles = (queries + kTile - 1) / kTile;
  torch::stable::parallel_for(0, tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local lwfm::ClassTerms<T> workspace;
    for (std::int64_t first = begin * kTile; first < std::min(end * kTile, queries);
         first += kTile) {
      work(workspace, lwfm::QueryRange{first, std::min(kTile, queries - first)});
    }
  });
}

template <class T>
void compare_all(const ClassInputs& in, const ClassOutputs& outputs) {
  const lwfm::QueryTerms<T> terms{data_of<const T>(in.a),       data_of<const T>(in.b),
                                  data_of<T>(outputs.inner),    data_of<T>(outputs.square_s),
                                  data_of<T>(outputs.square_q), data_of<T>(outputs.features)};
  for_queries<T>(in.Q, [&](lwfm::ClassTerms<T>& workspace, const lwfm::QueryRange& queries) {
    lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      workspace.template forward<decltype(bytes)::value>(layer_of<T>(in), in.classes(), queries,
                                                         terms);
    });
  });
}

Four class_terms_cpu(const Tensor& a, const Tensor& b, const Tensor& support, const Tensor& query,
                     const Tensor& images, const Tensor& begin) {
  const ClassInputs in(a, b, support, query, images, begin);
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
  const lwfm::QueryTermsGradient<T> terms{data_of<const T>(in.a),
                                          data_of<const T>(in.b),
                                          data_of<const T>(from.inner),
                                          data_of<const T>(from.square_s),
                                          data_of<const T>(from.square_q),
                                          data_of<const T>(from.features),
                                          data_of<T>(to.a),
                                          data_of<T>(to.b),
                                          data_of<T>(to.query),
                                          data_of<T>(mean_grads)};
  for_queries<T>(in.Q, [&](lwfm::ClassTerms<T>& workspace, const lwfm::QueryRange& queries) {
    lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      workspace.template backward<decltype(bytes)::value>(layer_of<T>(in), in.classes(), queries,
                                                          terms);
    });
  });
}

template <class T>
void differentiate_supports(const ClassInputs& in, const Tensor& support_grad,
                            const Tensor& mean_grads) {
  const ClassImages classes = in.classes();
  std::vector<std::int64_t> class_of(static_cast<std::size_t>(in.S));
  for (std::int64_t c = 0; c < in.way; ++c) {
    for (std::int64_t k = classes.begin[c]; k < classes.begin[c + 1]; ++k) {
      class_of[static_cast<std::size_t>(classes.images[k])] = c;
    }
  }
  T* const grad = data_of<T>(support_grad);
  torch::stable::parallel_for(0, in.S, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local lwfm::ClassTerms<T> workspace;
    for (std::int64_t s = begin; s < end; ++s) {
      lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
        workspace.template support_gradient<decltype(bytes)::value>(
            layer_of<T>(in), classes, class_of[static_cast<std::size_t>(s)], s,
            data_of<const T>(in.a), data_of<const T>(mean_grads), in.Q, grad + s * in.P * in.C);
      });
    }
  });
}

Four class_terms_backward_cpu(const Tensor& inner, const Tensor& square_s, const Tensor& square_q,
                              const Tensor& features, const Tensor& a, const Tensor& b,
                              const Tensor& support, const Tensor& query, const Tensor& images,
                              const Tensor& begin) {
  const ClassInputs in(a, b, support, query, images, begin);
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

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "class_terms(Tensor a, Tensor b, Tensor support, Tensor query, Tensor images, "
      "Tensor begin) -> (Tensor inner, Tensor square_s, Tensor square_q, Tensor features)");
  library.def(
      "class_terms_backward(Tensor grad_inner, Tensor grad_square_s, Tensor grad_square_q, "
      "Tensor grad_features, Tensor a, Tensor b, Tensor support, Tensor query, Tensor images, "
      "Tensor begin) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("class_terms", TORCH_BOX(&class_terms_cpu));
  library.impl("class_terms_backward", TORCH_BOX(&class_terms_backward_cpu));
}
