// lwfm::embedding_weights: raw [..., P, M], row_scale [..., P], column_scale [..., M]
//   -> a [..., P], b [..., M], reached [..., M]; see core/embedding_weights.h.
#include "core/embedding_weights.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "blocks.h"

namespace {

using lwfm::BlockGradients;
using lwfm::EmbeddingWeights;
using lwfm::GradientTensors;
using lwfm::ScalarType;
using lwfm::ScaledBlocks;
using lwfm::Vectors;
using torch::stable::Tensor;
using Three = std::tuple<Tensor, Tensor, Tensor>;

template <class T>
void weigh_all(const ScaledBlocks<T>& blocks, double temperature, const Tensor& a, const Tensor& b,
               const Tensor& reached) {
  const std::int64_t P = blocks.raw.rows(), M = blocks.raw.columns();
  T* const a_data = lwfm::data_of<T>(a);
  T* const b_data = lwfm::data_of<T>(b);
  T* const reached_data = lwfm::data_of<T>(reached);
  torch::stable::parallel_for(0, blocks.raw.count(), lwfm::grain_of(P, M),
                              [&](std::int64_t begin, std::int64_t end) {
                                thread_local EmbeddingWeights<T> workspace;
                                for (std::int64_t p = begin; p < end; ++p) {
                                  lwfm::weigh(workspace, blocks[p], static_cast<T>(temperature),
                                              a_data + p * P, b_data + p * M, reached_data + p * M);
                                }
                              });
}

template <class T>
void weigh_all_backward(const ScaledBlocks<T>& blocks, double temperature,
                        const Vectors<const T>& grad_a, const Vectors<const T>& grad_b,
                        const Vectors<const T>& grad_reached, const BlockGradients<T>& to) {
  torch::stable::parallel_for(
      0, blocks.raw.count(), lwfm::grain_of(blocks.raw.rows(), blocks.raw.columns()),
      [&](std::int64_t begin, std::int64_t end) {
        thread_local EmbeddingWeights<T> workspace;
        for (std::int64_t p = begin; p < end; ++p) {
          lwfm::weigh_backward<T>(workspace, blocks[p], static_cast<T>(temperature),
                                  {grad_a[p], grad_b[p], grad_reached[p]}, to[p]);
        }
      });
}

Three embedding_weights_cpu(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                            double temperature) {
  lwfm::require_blocks(raw, row_scale, column_scale, "raw");
  const std::int64_t P = raw.size(raw.dim() - 2), M = raw.size(raw.dim() - 1);
  const ScalarType dtype = raw.scalar_type();
  Tensor a = lwfm::empty_for(raw, {P}, dtype), b = lwfm::empty_for(raw, {M}, dtype),
         reached = lwfm::empty_for(raw, {M}, dtype);
  if (dtype == ScalarType::Float) {
    weigh_all<float>({raw, row_scale, column_scale}, temperature, a, b, reached);
  } else {
    weigh_all<double>({raw, row_scale, column_scale}, temperature, a, b, reached);
  }
  return {a, b, reached};
}

template <class T>
void backward_of(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                 double temperature, const Tensor& grad_a, const Tensor& grad_b,
                 const Tensor& grad_reached, const GradientTensors& to) {
  weigh_all_backward<T>({raw, row_scale, column_scale}, temperature, Vectors<const T>(grad_a),
                        Vectors<const T>(grad_b), Vectors<const T>(grad_reached),
                        BlockGradients<T>(to));
}

Three embedding_weights_backward_cpu(const Tensor& grad_a, const Tensor& grad_b,
                                     const Tensor& grad_reached, const Tensor& raw,
                                     const Tensor& row_scale, const Tensor& column_scale,
                                     double temperature) {
  lwfm::require_blocks(raw, row_scale, column_scale, "raw");
  const std::int64_t P = raw.size(raw.dim() - 2), M = raw.size(raw.dim() - 1);
  lwfm::require_vectors(raw, grad_a, P, "grad_a");
  lwfm::require_vectors(raw, grad_b, M, "grad_b");
  lwfm::require_vectors(raw, grad_reached, M, "grad_reached");
  const GradientTensors to = lwfm::gradients_for(raw);
  const auto backward =
      raw.scalar_type() == ScalarType::Float ? backward_of<float> : backward_of<double>;
  backward(raw, row_scale, column_scale, temperature, grad_a, grad_b, grad_reached, to);
  return {to.raw, to.row_scale, to.column_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("embedding_weights", TORCH_BOX(&embedding_weights_cpu));
  library.impl("embedding_weights_backward", TORCH_BOX(&embedding_weights_backward_cpu));
}
