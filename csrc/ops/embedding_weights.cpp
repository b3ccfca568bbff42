// lwfm::embedding_weights: raw [..., P, M], row_scale [..., P], column_scale [..., M]
//   -> a [..., P], b [..., M]; see core/matching/embedding_weights.h.
#include "core/matching/embedding_weights.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "core/matching/embedding_weights_group.h"
#include "tensor_views.h"

namespace {

using lwfm::BlockBatch;
using lwfm::BlockGradient;
using lwfm::BlockGradients;
using lwfm::EmbeddingWeights;
using lwfm::GradientTensors;
using lwfm::GroupWeights;
using lwfm::PairGroup;
using lwfm::ScalarType;
using lwfm::ScaledBlocks;
using lwfm::Vectors;
using lwfm::WeightGradients;
using torch::stable::Tensor;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

// Whether blocks are processed in groups, one a lane, or one by one.
bool in_groups(std::int64_t rows, std::int64_t columns) {
  return rows * columns <= lwfm::kGroupedEntries;
}

// Calls work(begin, end) for ranges of pairs; where they are grouped, ranges of whole groups, so
// that the groups do not depend on the number of threads.
template <class T, class Work>
void for_pairs(const BlockBatch<const T>& raw, const Work& work) {
  const std::int64_t pairs = raw.count(),
                     unit = in_groups(raw.rows(), raw.columns()) ? lwfm::kGroup<T> : 1;
  const std::int64_t units = (pairs + unit - 1) / unit;
  const std::int64_t grain =
      std::max<std::int64_t>(1, lwfm::grain_of(raw.rows(), raw.columns()) / unit);
  torch::stable::parallel_for(0, units, grain, [&](std::int64_t begin, std::int64_t end) {
    work(begin * unit, std::min(end * unit, pairs));
  });
}

template <class T>
PairGroup<T> group_at(const ScaledBlocks<T>& blocks, std::int64_t first, std::int64_t end) {
  PairGroup<T> group;
  group.count = static_cast<int>(std::min<std::int64_t>(end - first, lwfm::kGroup<T>));
  for (int lane = 0; lane < group.count; ++lane) group.blocks[lane] = blocks[first + lane];
  return group;
}

template <class T>
void weigh_all(const ScaledBlocks<T>& blocks, T temperature, const Tensor& a, const Tensor& b) {
  const std::int64_t P = blocks.raw.rows(), M = blocks.raw.columns();
  T* const a_data = lwfm::data_of<T>(a);
  T* const b_data = lwfm::data_of<T>(b);
  for_pairs(blocks.raw, [&](std::int64_t begin, std::int64_t end) {
    thread_local EmbeddingWeights<T> one;
    thread_local GroupWeights<T> several;
    if (in_groups(P, M)) {
      for (std::int64_t p = begin; p < end; p += lwfm::kGroup<T>) {
        lwfm::weigh_group(several, group_at(blocks, p, end), temperature, a_data + p * P,
                          b_data + p * M);
      }
    } else {
      for (std::int64_t p = begin; p < end; ++p) {
        lwfm::weigh(one, blocks[p], temperature, a_data + p * P, b_data + p * M);
      }
    }
  });
}

// The gradients of a and b.
template <class T>
struct WeightGradientBatch {
  Vectors<const T> a, b;

  WeightGradients<T> operator[](std::int64_t p) const { return {a[p], b[p]}; }
};

template <class T>
void weigh_group_at(GroupWeights<T>& workspace, const ScaledBlocks<T>& blocks, T temperature,
                    const WeightGradientBatch<T>& from, const BlockGradients<T>& to,
                    std::int64_t first, std::int64_t end) {
  const PairGroup<T> group = group_at(blocks, first, end);
  WeightGradients<T> grads[lwfm::kGroup<T>];
  BlockGradient<T> results[lwfm::kGroup<T>];
  for (int lane = 0; lane < group.count; ++lane) {
    grads[lane] = from[first + lane];
    results[lane] = to[first + lane];
  }
  lwfm::weigh_group_backward(workspace, group, temperature, grads, results);
}

template <class T>
void weigh_all_backward(const ScaledBlocks<T>& blocks, T temperature,
                        const WeightGradientBatch<T>& from, const BlockGradients<T>& to) {
  for_pairs(blocks.raw, [&](std::int64_t begin, std::int64_t end) {
    thread_local EmbeddingWeights<T> one;
    thread_local GroupWeights<T> several;
    if (in_groups(blocks.raw.rows(), blocks.raw.columns())) {
      for (std::int64_t p = begin; p < end; p += lwfm::kGroup<T>) {
        weigh_group_at(several, blocks, temperature, from, to, p, end);
      }
    } else {
      for (std::int64_t p = begin; p < end; ++p) {
        lwfm::weigh_backward(one, blocks[p], temperature, from[p], to[p]);
      }
    }
  });
}

Two embedding_weights_cpu(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                          double temperature) {
  lwfm::require_blocks(raw, row_scale, column_scale, "raw");
  const std::int64_t P = raw.size(raw.dim() - 2), M = raw.size(raw.dim() - 1);
  const ScalarType dtype = raw.scalar_type();
  Tensor a = lwfm::empty_for(raw, {P}, dtype), b = lwfm::empty_for(raw, {M}, dtype);
  if (dtype == ScalarType::Float) {
    weigh_all<float>({raw, row_scale, column_scale}, static_cast<float>(temperature), a, b);
  } else {
    weigh_all<double>({raw, row_scale, column_scale}, temperature, a, b);
  }
  return {a, b};
}

template <class T>
void backward_of(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                 double temperature, const Tensor& grad_a, const Tensor& grad_b,
                 const GradientTensors& to) {
  weigh_all_backward<T>({raw, row_scale, column_scale}, static_cast<T>(temperature),
                        {Vectors<const T>(grad_a), Vectors<const T>(grad_b)},
                        BlockGradients<T>(to));
}

Three embedding_weights_backward_cpu(const Tensor& grad_a, const Tensor& grad_b, const Tensor& raw,
                                     const Tensor& row_scale, const Tensor& column_scale,
                                     double temperature) {
  lwfm::require_blocks(raw, row_scale, column_scale, "raw");
  const std::int64_t P = raw.size(raw.dim() - 2), M = raw.size(raw.dim() - 1);
  lwfm::require_vectors(raw, grad_a, P, "grad_a");
  lwfm::require_vectors(raw, grad_b, M, "grad_b");
  const GradientTensors to = lwfm::gradients_for(raw);
  const auto backward =
      raw.scalar_type() == ScalarType::Float ? backward_of<float> : backward_of<double>;
  backward(raw, row_scale, column_scale, temperature, grad_a, grad_b, to);
  return {to.raw, to.row_scale, to.column_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "embedding_weights(Tensor raw, Tensor row_scale, Tensor column_scale, float temperature) "
      "-> (Tensor a, Tensor b)");
  library.def(
      "embedding_weights_backward(Tensor grad_a, Tensor grad_b, Tensor raw, Tensor row_scale, "
      "Tensor column_scale, float temperature) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("embedding_weights", TORCH_BOX(&embedding_weights_cpu));
  library.impl("embedding_weights_backward", TORCH_BOX(&embedding_weights_backward_cpu));
}
