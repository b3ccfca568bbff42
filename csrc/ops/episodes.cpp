// lwfm::episodes, the similarities of E episodes: images of n encoded images as lwfm::encode_maps
// returns them, for each layer
//   positions [n, P, C], squares [n, P], grams [n, P, P], embedded [n, P, D] and embedded_squares
//   [n, P] (or none),
//   support [E, S] and query [E, Q], which images make the episodes (none: one episode, the first S
//   images and all others), order [S] and begin [way + 1], the support images class by class and
//   where classes begin
//   -> base and matching [E, Q, way], features [E, Q, C] or empty; then, if `record`, what the
//   backward pass reads: see EpisodeOutputs. Without lists there is no dimension E.
// top_k: 0 for no matching, -1 for all matched positions. See core/matching/episode_forward.h.
// fused and tf32 are for CUDA: whether one kernel multiplies the positions and does everything
// else, 1, torch's matrix products come first, 0, or the rule of cuda/fused_plan.h decides, -1
// (there are no matrix products to choose where something is recorded); and whether that kernel may
// round float32 to TF32, as torch's products do by its settings.
//
// Only positions and embedded have gradients; those of squares and grams are part of them.
#include "episodes.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "core/matching/episode_run.h"
#include "episodes_cpu.h"

namespace {

using lwfm::CpuProducts;
using lwfm::EncodedPool;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeOutputs;
using lwfm::EpisodeSizes;
using lwfm::FirstFailure;
using lwfm::LayerResults;
using lwfm::OptionalTensor;
using lwfm::PoolLayer;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

template <class T>
void write_sums(const lwfm::EpisodeSums<T>& sums, const EpisodeOutputs& outputs, bool record) {
  const EpisodeImages& images = sums.images;
  const std::int64_t way = images.classes.way;
  T* const base = lwfm::data_of<T>(outputs.base);
  T* const matching = lwfm::data_of<T>(outputs.matching);
  torch::stable::parallel_for(
      0, images.E * images.Q, 256, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) {
          const std::int64_t e = n / images.Q, q = n % images.Q;
          for (std::int64_t c = 0; c < way; ++c) {
            base[n * way + c] = sums.base(e, q, c);
            matching[n * way + c] = sums.matching(e, q, c);
            for (std::int64_t which = 0; record && which < 3; ++which) {
              lwfm::data_of<T>(outputs.terms)[((e * way + c) * 3 + which) * images.Q + q] =
                  sums.term(which, e, q, c);
            }
          }
        }
      });
}

template <class T>
void compare_episodes(const EncodedPool& pool, const EpisodeImages& images,
                      const EpisodeOptions& options, bool record, const EpisodeOutputs& outputs) {
  const std::vector<PoolLayer<T>> layers = lwfm::pool_layers<T>(pool);
  lwfm::EpisodeTerms<T> terms(layers.size(), images, options);
  std::vector<LayerResults<T>>& results = terms.results;
  std::int64_t channel = 0;
  for (std::size_t l = 0; l < layers.size(); channel += layers[l++].C) {
    if (options.features) {
      results[l].features = lwfm::data_of<T>(outputs.features) + channel;
      results[l].feature_stride = pool.channels();
    }
    if (!record) continue;
    results[l].a = lwfm::data_of<T>(outputs.a[l]);
    results[l].b = lwfm::data_of<T>(outputs.b[l]);
    if (!options.matches()) continue;
    results[l].assignment = lwfm::data_of<std::int32_t>(outputs.assignment[l]);
    results[l].cosines = lwfm::data_of<T>(outputs.cosines[l]);
  }
  FirstFailure failure;
  lwfm::run_episodes(layers, images, options, results, failure, lwfm::InParallel{}, CpuProducts{});
  lwfm::require(!failure.failed(), failure.message());
  write_sums<T>({images, options, results}, outputs, record);
}

TensorList episodes_cpu(TensorList positions, TensorList squares, TensorList grams,
                        TensorList embedded, TensorList embedded_squares, OptionalTensor support,
                        OptionalTensor query, Tensor order, Tensor begin, double temperature,
                        std::int64_t top_k, bool mean_over_layers, bool merge_shots, bool features,
                        bool record, std::int64_t, bool) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const EpisodeSizes sizes(pool, support, query, order, begin);
  const EpisodeOptions options =
      lwfm::episode_options(pool, temperature, top_k, mean_over_layers, merge_shots, features);
  const EpisodeImages images = lwfm::episode_images(pool, sizes, support, query, order, begin);
  return lwfm::compare_on_cpu(pool, sizes, images, options, record).list();
}

}  // namespace

namespace lwfm {

EpisodeOutputs compare_on_cpu(const EncodedPool& pool, const EpisodeSizes& sizes,
                              const EpisodeImages& images, const EpisodeOptions& options,
                              bool record) {
  EpisodeOutputs outputs(pool, sizes, options, record);
  const auto compare = pool.positions[0].scalar_type() == ScalarType::Float
                           ? compare_episodes<float>
                           : compare_episodes<double>;
  compare(pool, images, options, record, outputs);
  return outputs;
}

}  // namespace lwfm

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "episodes(Tensor[] positions, Tensor[] squares, Tensor[] grams, Tensor[] embedded, "
      "Tensor[] embedded_squares, Tensor? support, Tensor? query, Tensor order, Tensor begin, "
      "float temperature, int top_k, bool mean_over_layers, bool merge_shots, bool features, "
      "bool record, int fused=-1, bool tf32=False) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("episodes", TORCH_BOX(&episodes_cpu));
}
