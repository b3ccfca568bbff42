// lwfm::compare_maps, the logits of one episode from the maps of its images: lwfm::encode_maps and
// lwfm::episodes in one call, with the arguments of both
//   -> logits (base + matching_weight matching) / temperature [Q, way], features [Q, C] or empty;
//   then, if `record`, what encode_maps returned, and what episodes returned for the backward pass.
// The backward pass takes the gradients of logits and, if there are any, features, and what was
// recorded; it returns the gradients of the maps, then of the weights. Those of positions are
// written where those of the maps go, which replace them. For the CPU alone: a small episode takes
// as long there as the calls around its kernels.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

#include "encode_maps.h"
#include "episodes_cpu.h"

namespace {

using lwfm::data_of;
using lwfm::EncodedGradients;
using lwfm::EncodedPool;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeSizes;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

// base becomes (base + weight matching) / temperature
template <class T>
void write_logits(const Tensor& base, const Tensor& matching, double weight, double temperature) {
  T* const to = data_of<T>(base);
  const T* const matched = data_of<const T>(matching);
  for (std::int64_t k = 0; k < base.numel(); ++k) {
    to[k] = (to[k] + static_cast<T>(weight) * matched[k]) / static_cast<T>(temperature);
  }
}

// The gradients of base and matching.
template <class T>
std::pair<Tensor, Tensor> differentiate_logits(const Tensor& grad, double weight,
                                               double temperature) {
  const Tensor base = lwfm::empty_tensor(grad, grad.sizes()),
               matching = lwfm::empty_tensor(grad, grad.sizes());
  const T* const from = data_of<const T>(grad);
  for (std::int64_t k = 0; k < grad.numel(); ++k) {
    data_of<T>(base)[k] = from[k] / static_cast<T>(temperature);
    data_of<T>(matching)[k] = static_cast<T>(weight) * data_of<T>(base)[k];
  }
  return {base, matching};
}

TensorList compare_maps_cpu(TensorList tensors, Sizes dims, bool joined, bool together,
                            TensorList all_weights, Tensor order, Tensor begin,
                            double attention_temperature, std::int64_t top_k, bool mean_over_layers,
                            bool merge_shots, double matching_weight, double temperature,
                            bool features, bool record) {
  const lwfm::MapBatches maps(tensors, dims, joined);
  const lwfm::EmbeddingWeightsOfLayers weights(all_weights, dims, maps.like().scalar_type());
  const auto encoded = lwfm::encode_on_cpu(maps, together, weights, record);
  const EncodedPool pool(encoded.positions, encoded.squares, encoded.grams, encoded.embedded,
                         encoded.embedded_squares);
  const EpisodeSizes sizes(pool, std::nullopt, std::nullopt, order, begin);
  const EpisodeOptions options = lwfm::episode_options(pool, attention_temperature, top_k,
                                                       mean_over_layers, merge_shots, features);
  const EpisodeImages images =
      lwfm::episode_images(pool, sizes, std::nullopt, std::nullopt, order, begin);
  const TensorList compared = lwfm::compare_on_cpu(pool, sizes, images, options, record).list();
  const bool is_float = maps.like().scalar_type() == ScalarType::Float;
  (is_float ? write_logits<float> : write_logits<double>)(compared[0], compared[1], matching_weight,
                                                          temperature);
  TensorList all{compared[0], compared[2]};
  if (!record) return all;
  const TensorList recorded = encoded.list();
  all.insert(all.end(), recorded.begin(), recorded.end());
  all.insert(all.end(), compared.begin() + 3, compared.end());
  return all;
}

// What lwfm::encode_maps returned.
struct EncodedParts {
  TensorList positions, squares, grams, embedded, embedded_squares, hidden, rectified;

  EncodedParts(const TensorList& encoded, std::size_t layers) {
    auto next = encoded.begin();
    for (TensorList* part :
         {&positions, &squares, &grams, &embedded, &embedded_squares, &hidden, &rectified}) {
      if (next == encoded.end()) return;
      lwfm::require(encoded.end() - next >= static_cast<std::ptrdiff_t>(layers),
                    "encoded images must be those of the forward pass");
      part->assign(next, next + static_cast<std::ptrdiff_t>(layers));
      next += static_cast<std::ptrdiff_t>(layers);
    }
  }
};

// Writes the gradients of positions to those of the maps, and returns those of the weights. A layer
// of embedded positions after the other, so that there is memory for one of them.
template <class T>
TensorList differentiate_layers(const EncodedPool& pool, const EpisodeImages& images,
                                const EpisodeOptions& options, const lwfm::BackwardInputs& inputs,
                                const EncodedGradients& to) {
  std::vector<lwfm::PoolGradient<T>> positions;
  for (std::size_t l = 0; l < pool.layers(); ++l) {
    positions.emplace_back();
    for (std::int64_t image = 0; image < pool.images(); ++image) {
      positions.back().push_back(to.maps.view<T>(image, l).data);
    }
  }
  TensorList of_weights;
  std::optional<Tensor> embedded;
  const auto begin = [&](std::size_t l) {
    embedded = lwfm::empty_tensor(pool.embedded[l], pool.embedded[l].sizes());
    return lwfm::images_of<T>(*embedded);
  };
  const auto end = [&](std::size_t l) {
    for (const Tensor& grad : lwfm::differentiate_embedding(to, l, *embedded)) {
      of_weights.push_back(grad);
    }
    embedded.reset();
  };
  lwfm::differentiate_episodes<T>(pool, images, options, inputs, positions, {begin, end});
  return of_weights;
}

// grads: of logits, and of features if they are wanted; images: of each batch; heights: of the maps
// of each layer.
TensorList compare_maps_backward_cpu(TensorList grads, TensorList encoded, TensorList weights,
                                     TensorList recorded, Tensor order, Tensor begin, Sizes images,
                                     Sizes heights, bool joined, bool together,
                                     double attention_temperature, std::int64_t top_k,
                                     bool mean_over_layers, bool merge_shots,
                                     double matching_weight, double temperature, bool features) {
  const EncodedParts parts(encoded, heights.size());
  const EncodedPool pool(parts.positions, parts.squares, parts.grams, parts.embedded,
                         parts.embedded_squares);
  const EpisodeSizes sizes(pool, std::nullopt, std::nullopt, order, begin);
  const EpisodeOptions options = lwfm::episode_options(pool, attention_temperature, top_k,
                                                       mean_over_layers, merge_shots, features);
  lwfm::require(grads.size() == (features ? 2 : 1) &&
                    lwfm::has_shape(grads[0], {sizes.Q, sizes.way}) &&
                    grads[0].scalar_type() == pool.positions[0].scalar_type(),
                "gradients must be those of logits, and of features if they are wanted");
  const bool is_float = pool.positions[0].scalar_type() == ScalarType::Float;
  const auto [base, matching] =
      (is_float ? differentiate_logits<float>
                : differentiate_logits<double>)(lwfm::contiguous_of(grads[0]), matching_weight,
                                                temperature);
  const lwfm::BackwardInputs inputs(pool, sizes, options, {base, matching, grads.back()}, recorded);
  const EncodedGradients to(nullptr, parts.positions, weights, parts.hidden, parts.rectified,
                            images, heights, joined);
  const EpisodeImages of =
      lwfm::episode_images(pool, sizes, std::nullopt, std::nullopt, order, begin);
  const TensorList of_weights =
      (is_float ? differentiate_layers<float> : differentiate_layers<double>)(pool, of, options,
                                                                              inputs, to);
  lwfm::differentiate_centering(to, together);
  TensorList all = to.maps.tensors();
  all.insert(all.end(), of_weights.begin(), of_weights.end());
  return all;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "compare_maps(Tensor[] maps, int[] dims, bool joined, bool together, Tensor[] weights, "
      "Tensor order, Tensor begin, float attention_temperature, int top_k, bool mean_over_layers, "
      "bool merge_shots, float matching_weight, float temperature, bool features, bool record) "
      "-> Tensor[]");
  library.def(
      "compare_maps_backward(Tensor[] grads, Tensor[] encoded, Tensor[] weights, "
      "Tensor[] recorded, Tensor order, Tensor begin, int[] images, int[] heights, bool joined, "
      "bool together, float attention_temperature, int top_k, bool mean_over_layers, "
      "bool merge_shots, float matching_weight, float temperature, bool features) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("compare_maps", TORCH_BOX(&compare_maps_cpu));
  library.impl("compare_maps_backward", TORCH_BOX(&compare_maps_backward_cpu));
}
