// lwfm::pixel_matching: raw and compared [..., P, M], each with row_scale [..., P] and column_scale
// [..., M] -> similarity [...], assignment [..., P] int64; see core/pixel_matching.h.
#include "core/matching/pixel_matching.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "blocks.h"
#include "matching_checks.h"

namespace {

using lwfm::BlockGradients;
using lwfm::GradientTensors;
using lwfm::MatchingWorkspace;
using lwfm::ScalarType;
using lwfm::ScaledBlocks;
using lwfm::Status;
using torch::stable::Tensor;

template <class T>
void match_all(const ScaledBlocks<T>& blocks, const ScaledBlocks<T>& compared, std::int64_t top_k,
               const Tensor& similarity, const Tensor& assignment) {
  const std::int64_t P = blocks.raw.rows();
  T* const similarity_data = lwfm::data_of<T>(similarity);
  auto* const columns = lwfm::data_of<std::int64_t>(assignment);
  std::vector<Status> statuses(static_cast<std::size_t>(blocks.raw.count()), Status::ok);
  torch::stable::parallel_for(0, blocks.raw.count(), lwfm::grain_of(P, blocks.raw.columns()),
                              [&](std::int64_t begin, std::int64_t end) {
                                thread_local MatchingWorkspace<T> workspace;
                                for (std::int64_t p = begin; p < end; ++p) {
                                  const Status status =
                                      lwfm::match_positions(workspace, blocks[p], columns + p * P);
                                  statuses[static_cast<std::size_t>(p)] = status;
                                  if (status != Status::ok) continue;
                                  similarity_data[p] = lwfm::matched_similarity(
                                      workspace, compared[p], columns + p * P, top_k);
                                }
                              });
  lwfm::require_solved(statuses, blocks, columns);
}

template <class T>
void match_all_backward(const Tensor& grad, const ScaledBlocks<T>& compared,
                        const Tensor& assignment, std::int64_t top_k,
                        const GradientTensors& tensors) {
  const BlockGradients<T> to(tensors);
  const lwfm::Batch grads(grad, 0);
  const T* const grad_data = lwfm::data_of<const T>(grad);
  const auto* const columns = lwfm::data_of<const std::int64_t>(assignment);
  const std::int64_t P = compared.raw.rows();
  torch::stable::parallel_for(0, compared.raw.count(), lwfm::grain_of(P, compared.raw.columns()),
                              [&](std::int64_t begin, std::int64_t end) {
                                thread_local MatchingWorkspace<T> workspace;
                                for (std::int64_t p = begin; p < end; ++p) {
                                  lwfm::matched_similarity_backward(
                                      workspace, compared[p], columns + p * P, top_k,
                                      grad_data[grads.offset(p)], to[p]);
                                }
                              });
}

std::tuple<Tensor, Tensor> pixel_matching_cpu(const Tensor& raw, const Tensor& row_scale,
                                              const Tensor& column_scale, const Tensor& compared,
                                              const Tensor& compared_row_scale,
                                              const Tensor& compared_column_scale,
                                              std::int64_t top_k) {
  lwfm::require_blocks(raw, row_scale, column_scale, "raw");
  lwfm::require_blocks(compared, compared_row_scale, compared_column_scale, "compared");
  lwfm::require_same_shape(raw, compared);
  lwfm::require_top_k(raw.size(raw.dim() - 2), raw.size(raw.dim() - 1), top_k);
  const ScalarType dtype = raw.scalar_type();
  Tensor similarity = lwfm::empty_for(raw, {}, dtype);
  Tensor assignment = lwfm::empty_for(raw, {raw.size(raw.dim() - 2)}, ScalarType::Long);
  if (dtype == ScalarType::Float) {
    match_all<float>({raw, row_scale, column_scale},
                     {compared, compared_row_scale, compared_column_scale}, top_k, similarity,
                     assignment);
  } else {
    match_all<double>({raw, row_scale, column_scale},
                      {compared, compared_row_scale, compared_column_scale}, top_k, similarity,
                      assignment);
  }
  return {similarity, assignment};
}

std::tuple<Tensor, Tensor, Tensor> pixel_matching_backward_cpu(
    const Tensor& grad, const Tensor& compared, const Tensor& row_scale, const Tensor& column_scale,
    const Tensor& assignment, std::int64_t top_k) {
  lwfm::require_blocks(compared, row_scale, column_scale, "compared");
  lwfm::require_top_k(compared.size(compared.dim() - 2), compared.size(compared.dim() - 1), top_k);
  lwfm::require_of_forward(compared, grad, assignment);
  GradientTensors to = lwfm::gradients_for(compared);
  for (Tensor* tensor : {&to.raw, &to.row_scale, &to.column_scale}) torch::stable::zero_(*tensor);
  if (compared.scalar_type() == ScalarType::Float) {
    match_all_backward<float>(grad, {compared, row_scale, column_scale}, assignment, top_k, to);
  } else {
    match_all_backward<double>(grad, {compared, row_scale, column_scale}, assignment, top_k, to);
  }
  return {to.raw, to.row_scale, to.column_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("pixel_matching", TORCH_BOX(&pixel_matching_cpu));
  library.impl("pixel_matching_backward", TORCH_BOX(&pixel_matching_backward_cpu));
}
