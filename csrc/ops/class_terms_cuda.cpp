// lwfm::class_terms and its backward on CUDA tensors; the contract is in class_terms.cpp,
// except that the lists of images are not read on the host: a class that lists an image which
// does not exist, or none, has NaN terms and no gradients.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "class_terms.h"
#include "cuda/feature_kernels.h"
#include "device.h"

namespace {

using lwfm::ClassInputs;
using lwfm::ClassOutputs;
using lwfm::data_of;
using torch::stable::Tensor;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

void require_one_device(const ClassInputs& in) {
  for (const Tensor* tensor : {&in.b, &in.support, &in.query, &in.images, &in.begin}) {
    lwfm::require_same_device(in.a, *tensor, "every input of class_terms");
  }
}

template <class T>
lwfm::ClassTermsInputs<T> kernel_inputs(const ClassInputs& in) {
  return {in.Q,
          in.S,
          in.P,
          in.M,
          in.C,
          in.classes(),
          data_of<const T>(in.a),
          data_of<const T>(in.b),
          data_of<const T>(in.support),
          data_of<const T>(in.query)};
}

Four class_terms_cuda(const Tensor& a, const Tensor& b, const Tensor& support, const Tensor& query,
                      const Tensor& images, const Tensor& begin) {
  const ClassInputs in(a, b, support, query, images, begin);
  require_one_device(in);
  const lwfm::OnDeviceOf device(in.a);
  const ClassOutputs to = lwfm::empty_terms(in);
  lwfm::for_dtype(in.a, [&](auto number) {
    using T = decltype(number);
    const lwfm::ClassTermsArguments<T> arguments{kernel_inputs<T>(in), data_of<T>(to.inner),
                                                 data_of<T>(to.square_s), data_of<T>(to.square_q),
                                                 data_of<T>(to.features)};
    lwfm::require_launched(lwfm::compare_classes(arguments, device.stream()), "class_terms");
  });
  return {to.inner, to.square_s, to.square_q, to.features};
}

Four class_terms_backward_cuda(const Tensor& inner, const Tensor& square_s, const Tensor& square_q,
                               const Tensor& features, const Tensor& a, const Tensor& b,
                               const Tensor& support, const Tensor& query, const Tensor& images,
                               const Tensor& begin) {
  const ClassInputs in(a, b, support, query, images, begin);
  require_one_device(in);
  const ClassOutputs from = lwfm::require_term_gradients(in, {inner, square_s, square_q, features});
  for (const Tensor* grad : {&from.inner, &from.square_s, &from.square_q, &from.features}) {
    lwfm::require_same_device(in.a, *grad, "every gradient");
  }
  const lwfm::OnDeviceOf device(in.a);
  const lwfm::ClassInputGradients to(in);
  const Tensor m_s_grad = lwfm::empty_mean_gradients(in), m_q_grad = lwfm::empty_mean_gradients(in);
  lwfm::for_dtype(in.a, [&](auto number) {
    using T = decltype(number);
    const lwfm::ClassTermsGradientArguments<T> arguments{kernel_inputs<T>(in),
                                                         data_of<const T>(from.inner),
                                                         data_of<const T>(from.square_s),
                                                         data_of<const T>(from.square_q),
                                                         data_of<const T>(from.features),
                                                         data_of<T>(m_s_grad),
                                                         data_of<T>(m_q_grad),
                                                         data_of<T>(to.a),
                                                         data_of<T>(to.b),
                                                         data_of<T>(to.support),
                                                         data_of<T>(to.query)};
    lwfm::require_launched(lwfm::compare_classes_backward(arguments, device.stream()),
                           "class_terms_backward");
  });
  return {to.a, to.b, to.support, to.query};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("class_terms", TORCH_BOX(&class_terms_cuda));
  library.impl("class_terms_backward", TORCH_BOX(&class_terms_backward_cuda));
}

#endif
