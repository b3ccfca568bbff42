// lwfm::correlation on CUDA tensors, in one kernel; the contract is in correlation.cpp.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "cuda/pair_kernels.h"
#include "device.h"
#include "feature_matching.h"

namespace {

using lwfm::CorrelationArguments;
using lwfm::Images;
using lwfm::ScalarType;
using torch::stable::Tensor;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct Inputs {
  const Tensor &support, &query, &support_compared, &query_compared;
  double temperature;
  std::int64_t top_k;

  bool compares_the_same() const {
    return support.const_data_ptr() == support_compared.const_data_ptr() &&
           query.const_data_ptr() == query_compared.const_data_ptr() &&
           support.size(2) == support_compared.size(2);
  }
};

void require_images(const Inputs& inputs) {
  const Tensor& support = inputs.support;
  const struct {
    const Tensor& support;
    const Tensor& query;
    const char* name;
  } sides[] = {
      {support, inputs.query, "support and query"},
      {inputs.support_compared, inputs.query_compared, "support_compared and query_compared"}};
  for (const auto& [s, q, name] : sides) {
    lwfm::require(s.dim() == 3 && q.dim() == 3 && s.size(2) == q.size(2) && s.size(2) > 0 &&
                      s.size(0) == support.size(0) && s.size(1) == support.size(1) &&
                      q.size(0) == inputs.query.size(0) && q.size(1) == inputs.query.size(1),
                  std::string(name) + " must be [S, P, C] and [Q, M, C]");
    for (const Tensor* tensor : {&s, &q}) {
      lwfm::require(tensor->scalar_type() == support.scalar_type(),
                    "all features must have one dtype");
      lwfm::require_same_device(support, *tensor, name);
    }
  }
  const std::int64_t P = support.size(1), M = inputs.query.size(1);
  lwfm::require(
      std::min(P, M) >= 1 && std::max(P, M) <= lwfm::kMaxAssignedPositions,
      "images must have 1 to " + std::to_string(lwfm::kMaxAssignedPositions) + " positions");
  if (inputs.top_k != 0) lwfm::require_top_k(P, M, inputs.top_k);
}

template <class In>
Images<In> images(const Tensor& tensor, bool present) {
  return {present ? lwfm::data_of<const In>(tensor) : nullptr,
          tensor.size(0),
          lwfm::as_int(tensor.size(1)),
          lwfm::as_int(tensor.size(2)),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2)};
}

template <class In, class T>
Four correlate(const Inputs& inputs, ScalarType dtype) {
  const std::int64_t S = inputs.support.size(0), P = inputs.support.size(1),
                     Q = inputs.query.size(0), M = inputs.query.size(1);
  const bool matching = inputs.top_k > 0, other = matching && !inputs.compares_the_same();
  const auto empty = [&](std::vector<std::int64_t> shape, ScalarType type) {
    return torch::stable::new_empty(inputs.support, shape, type);
  };
  Tensor a = empty({Q, S, P}, dtype), b = empty({Q, S, M}, dtype),
         similarity = matching ? empty({Q, S}, dtype) : empty({0}, dtype),
         assignment = matching ? empty({Q, S, P}, ScalarType::Long) : empty({0}, ScalarType::Long);
  const lwfm::OnDeviceOf device(inputs.support);
  const CorrelationArguments<In, T> arguments{images<In>(inputs.support, true),
                                              images<In>(inputs.query, true),
                                              images<In>(inputs.support_compared, other),
                                              images<In>(inputs.query_compared, other),
                                              static_cast<T>(inputs.temperature),
                                              static_cast<int>(inputs.top_k),
                                              lwfm::data_of<T>(a),
                                              lwfm::data_of<T>(b),
                                              lwfm::data_of<T>(similarity),
                                              lwfm::data_of<std::int64_t>(assignment)};
  lwfm::require_launched(lwfm::correlate_pairs(arguments, lwfm::multiprocessors(), device.stream()),
                         "correlation");
  return {a, b, similarity, assignment};
}

Four correlation_cuda(const Tensor& support, const Tensor& query, const Tensor& support_compared,
                      const Tensor& query_compared, double temperature, std::int64_t top_k) {
  const Inputs inputs{support, query, support_compared, query_compared, temperature, top_k};
  require_images(inputs);
  switch (support.scalar_type()) {
    case ScalarType::Float:
      return correlate<float, float>(inputs, ScalarType::Float);
    case ScalarType::Double:
      return correlate<double, double>(inputs, ScalarType::Double);
    case ScalarType::Half:
      return correlate<lwfm::Half, float>(inputs, ScalarType::Float);
    case ScalarType::BFloat16:
      return correlate<lwfm::BFloat16, float>(inputs, ScalarType::Float);
    default:
      throw std::invalid_argument("features must be float16, bfloat16, float32 or float64");
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("correlation", TORCH_BOX(&correlation_cuda));
}

#endif
