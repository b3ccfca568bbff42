// lwfm::feature_matching and its backward on CUDA tensors; the contract is in
// feature_matching.cpp, except that nothing waits for the device to find a pair without an
// assignment (a NaN among its cosines): its similarity is NaN and its assignment -1.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/feature_kernels.h"
#include "cuda/pair_kernels.h"
#include "device.h"
#include "feature_matching.h"
#include "linear_assignment.h"

namespace {

using lwfm::data_of;
using lwfm::FeatureSide;
using lwfm::MatchedFeatures;
using lwfm::Pairing;
using lwfm::ScalarType;
using torch::stable::Tensor;

constexpr const char* kName = "feature_matching";

// Features of one side, contiguous, with their inverse norms.
class FeatureTensors {
 public:
  FeatureTensors(const Tensor& features, void* stream)
      : values_(torch::stable::contiguous(features)),
        inverse_norms_(torch::stable::new_empty(values_, {values_.size(0), values_.size(1)},
                                                values_.scalar_type())) {
    lwfm::for_dtype(values_, [&](auto number) {
      using T = decltype(number);
      const int error =
          lwfm::find_inverse_norms(data_of<const T>(values_), values_.size(0) * values_.size(1),
                                   values_.size(2), data_of<T>(inverse_norms_), stream);
      lwfm::require_launched(error, kName);
    });
  }

  template <class T>
  FeatureSide<T> side() const {
    return {data_of<const T>(values_), data_of<const T>(inverse_norms_),
            lwfm::as_int(values_.size(1))};
  }

 private:
  Tensor values_, inverse_norms_;
};

// Assigns and compares; pairs of many positions through costs.
template <class T>
void match_all(const Tensor& raw, lwfm::FeatureMatchingArguments<T> arguments,
               MatchedFeatures& outputs, void* stream) {
  const lwfm::PairShape& shape = arguments.shape;
  if (std::max(shape.rows, shape.columns) <= lwfm::kMaxAssignedPositions) {
    lwfm::require_launched(lwfm::match_features(arguments, stream), kName);
    return;
  }
  const Tensor cost = lwfm::empty_for(raw, {shape.rows, shape.columns}, raw.scalar_type());
  const int error = lwfm::write_costs(shape, arguments.cosines, data_of<T>(cost), stream);
  lwfm::require_launched(error, kName);
  outputs.assignment = lwfm::assign(cost);
  arguments.assignment = data_of<std::int64_t>(outputs.assignment);
  lwfm::require_launched(lwfm::compare_features(arguments, stream), kName);
}

std::tuple<Tensor, Tensor, Tensor> feature_matching_cuda(const Tensor& raw, const Tensor& row_scale,
                                                         const Tensor& column_scale,
                                                         const Tensor& support, const Tensor& query,
                                                         std::int64_t top_k) {
  const Pairing pairing =
      lwfm::require_feature_matching(raw, row_scale, column_scale, support, query, top_k);
  lwfm::require_device_blocks(raw, row_scale, column_scale, "raw");
  lwfm::require_same_device(raw, support, "support");
  lwfm::require_same_device(raw, query, "query");
  const lwfm::OnDeviceOf device(raw);
  const FeatureTensors supports(support, device.stream()), queries(query, device.stream());
  MatchedFeatures outputs = lwfm::empty_matches(raw);
  lwfm::for_dtype(raw, [&](auto number) {
    using T = decltype(number);
    const lwfm::FeatureMatchingArguments<T> arguments{
        lwfm::pair_shape(raw),
        static_cast<int>(top_k),
        lwfm::pair_scaled_blocks<T>(raw, row_scale, column_scale),
        {pairing.paired, pairing.S},
        support.size(2),
        supports.side<T>(),
        queries.side<T>(),
        data_of<T>(outputs.similarity),
        data_of<std::int64_t>(outputs.assignment),
        data_of<T>(outputs.cosines)};
    match_all<T>(raw, arguments, outputs, device.stream());
  });
  return {outputs.similarity, outputs.assignment, outputs.cosines};
}

// The pairs of the forward pass, as [Q, S] or [B], with P x M positions.
lwfm::PairShape shape_of(const Tensor& grad, std::int64_t P, std::int64_t M) {
  lwfm::PairShape shape{
      {static_cast<int>(grad.dim()), grad.numel(), {}}, lwfm::as_int(P), lwfm::as_int(M)};
  for (std::int64_t d = 0; d < grad.dim(); ++d) shape.batch.sizes[d] = grad.size(d);
  return shape;
}

std::tuple<Tensor, Tensor> feature_matching_backward_cuda(const Tensor& grad, const Tensor& support,
                                                          const Tensor& query,
                                                          const Tensor& assignment,
                                                          const Tensor& cosines,
                                                          std::int64_t top_k) {
  const Pairing pairing =
      lwfm::require_matching_gradient(grad, support, query, {grad, assignment, cosines}, top_k);
  for (const Tensor* tensor : {&grad, &query, &assignment, &cosines}) {
    lwfm::require_same_device(support, *tensor, "every input of the gradient");
  }
  const lwfm::OnDeviceOf device(support);
  const FeatureTensors supports(support, device.stream()), queries(query, device.stream());
  const Tensor similarity_grad = torch::stable::contiguous(grad),
               columns = torch::stable::contiguous(assignment),
               matched = torch::stable::contiguous(cosines);
  const lwfm::PairShape shape = shape_of(grad, support.size(1), query.size(1));
  const Tensor shares = torch::stable::empty_like(matched),
               rows = torch::stable::new_empty(matched, {grad.numel(), query.size(1)},
                                               ScalarType::Int);
  // Contiguous, whatever the strides of the features.
  const auto like = [](const Tensor& x) {
    return torch::stable::new_empty(x, {x.size(0), x.size(1), x.size(2)}, x.scalar_type());
  };
  const Tensor support_grad = like(support), query_grad = like(query);
  lwfm::for_dtype(support, [&](auto number) {
    using T = decltype(number);
    const lwfm::FeatureMatchingGradientArguments<T> arguments{
        shape,
        static_cast<int>(top_k),
        {pairing.paired, pairing.S},
        pairing.S,
        pairing.Q,
        support.size(2),
        supports.side<T>(),
        queries.side<T>(),
        data_of<const T>(similarity_grad),
        data_of<const std::int64_t>(columns),
        data_of<const T>(matched),
        data_of<T>(shares),
        static_cast<int*>(rows.mutable_data_ptr()),
        data_of<T>(support_grad),
        data_of<T>(query_grad)};
    lwfm::require_launched(lwfm::match_features_backward(arguments, device.stream()),
                           "feature_matching_backward");
  });
  return {support_grad, query_grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("feature_matching", TORCH_BOX(&feature_matching_cuda));
  library.impl("feature_matching_backward", TORCH_BOX(&feature_matching_backward_cuda));
}

#endif
