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
#include "cpu_products.h"
#include "episodes_cpu.h"

namespace {

using lwfm::EncodedPool;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeOutputs;
using lwfm::EpisodeResults;
using lwfm::EpisodeSizes;
using lwfm::OptionalTensor;
using lwfm::ScalarType;
using lwfm::TensorList;
using torch::stable::Tensor;

template <class T>
void write_sums(const lwfm::EpisodeSums<T>& sums, const EpisodeResults<T>& to) {
  const EpisodeImages& images = sums.images;
  const std::int64_t way = images.classes.way;
  torch::stable::parallel_for(
      0, images.E * images.Q, 256, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) {
          const std::int64_t e = n / images.Q, q = n % images.Q;
          for (std::int64_t c = 0; c < way; ++c) {
            to.base[n * way + c] = sums.base(e, q, c);
            to.matching[n * way + c] = sums.matching(e, q, c);
            for (std::int64_t which = 0; to.terms != nullptr && which < 3; ++which) {
              to.terms[((e * way + c) * 3 + which) * images.Q + q] = sums.term(which, e, q, c);
            }
          }
        }
      });
}

template <class T>
void compare_pool(const EncodedPool& pool, const EpisodeImages& images,
                  const EpisodeOptions& options, const EpisodeOutputs& outputs) {
  const bool record = !outputs.a.empty();
  EpisodeResults<T> to{lwfm::data_of<T>(outputs.base),
                       lwfm::data_of<T>(outputs.matching),
                       options.features ? lwfm::data_of<T>(outputs.features) : nullptr,
                       record ? lwfm::data_of<T>(outputs.terms) : nullptr,
                       {}};
  for (std::size_t l = 0; l < pool.layers(); ++l) {
    to.recorded.push_back({});
    if (!record) continue;
    to.recorded[l].a = lwfm::data_of<T>(outputs.a[l]);
    to.recorded[l].b = lwfm::data_of<T>(outputs.b[l]);
    if (!options.matches()) continue;
    to.recorded[l].assignment = lwfm::data_of<std::int32_t>(outputs.assignment[l]);
    to.recorded[l].cosines = lwfm::data_of<T>(outputs.cosines[l]);
  }
  lwfm::compare_episodes<T>(lwfm::pool_layers<T>(pool), images, options, to);
}

TensorList episodes_cpu(TensorList positions, TensorList squares, TensorList grams,
                        TensorList embedded, TensorList embedded_squares, OptionalTensor support,
                        OptionalTensor query, Tensor order, Tensor begin, double temperature,
                        std::int64_t top_k, bool mean_over_layers, bool merge_shots, bool features,
                        bool record, std::int64_t, bool) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const EpisodeSizes sizes(pool.images(), support, query, order, begin);
  const EpisodeOptions options = lwfm::episode_options(
      pool.positions_of_layers(), temperature, top_k, mean_over_layers, merge_shots, features);
  const EpisodeImages images =
      lwfm::episode_images(pool.images(), sizes, support, query, order, begin);
  const EpisodeOutputs outputs(pool, sizes, options, record);
  const bool is_float = pool.positions[0].scalar_type() == ScalarType::Float;
  (is_float ? compare_pool<float> : compare_pool<double>)(pool, images, options, outputs);
  return outputs.list();
}

}  // namespace

namespace lwfm {

template <class T>
void compare_episodes(const std::vector<PoolLayer<T>>& layers, const EpisodeImages& images,
                      const EpisodeOptions& options, const EpisodeResults<T>& to) {
  EpisodeTerms<T> terms(layers.size(), images, options);
  std::vector<LayerResults<T>>& results = terms.results;
  std::int64_t channels = 0, channel = 0;
  for (const auto& layer : layers) channels += layer.C;
  for (std::size_t l = 0; l < layers.size(); channel += layers[l++].C) {
    if (options.features) {
      results[l].features = to.features + channel;
      results[l].feature_stride = channels;
    }
    results[l].a = to.recorded[l].a;
    results[l].b = to.recorded[l].b;
    results[l].assignment = to.recorded[l].assignment;
    results[l].cosines = to.recorded[l].cosines;
  }
  FirstFailure failure;
  run_episodes(layers, images, options, results, failure, InParallel{}, CpuProducts{});
  require(!failure.failed(), failure.message());
  write_sums<T>({images, options, results}, to);
}

template void compare_episodes(const std::vector<PoolLayer<float>>&, const EpisodeImages&,
                               const EpisodeOptions&, const EpisodeResults<float>&);
template void compare_episodes(const std::vector<PoolLayer<double>>&, const EpisodeImages&,
                               const EpisodeOptions&, const EpisodeResults<double>&);

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
