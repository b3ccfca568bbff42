// lwfm::episodes_backward: the gradients of positions and of embedded positions, from those of what
// lwfm::episodes returned and what it recorded; see episodes.cpp and
// core/matching/episode_backward.h.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "core/matching/episode_support_gradient.h"
#include "episodes_cpu.h"

namespace {

using lwfm::CpuProducts;
using lwfm::EncodedPool;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeOutputs;
using lwfm::EpisodeSizes;
using lwfm::in_parallel;
using lwfm::OptionalTensor;
using lwfm::PoolLayer;
using lwfm::QueryTile;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using lwfm::TileList;
using torch::stable::Tensor;

// Gradients of images of the pool, summed over the episodes in order.
template <class T>
class PoolGradients {
 public:
  PoolGradients(const EncodedPool& pool, const EpisodeImages& images)
      : images_(images), written_(static_cast<std::size_t>(pool.images())) {
    for (const TensorList* inputs : {&pool.positions, &pool.embedded}) {
      for (const Tensor& input : *inputs) {
        tensors_.push_back(torch::stable::new_empty(input, input.sizes(), input.scalar_type()));
      }
    }
  }

  const TensorList& tensors() const { return tensors_; }

  // Where the gradients of the queries go directly, without lists of images; else null.
  T* queries(std::size_t n) const {
    if (images_.query != nullptr || n >= tensors_.size()) return nullptr;
    return lwfm::data_of<T>(tensors_[n]) + images_.S * size_of(n);
  }

  // Adds those of episodes first, first + 1, ..., given layer by layer for each.
  void add(std::int64_t first, const std::vector<lwfm::LayerGradient<T>>& gradients,
           std::size_t layers) {
    std::vector<std::vector<Use>> uses(written_.size());
    const auto count = static_cast<std::int64_t>(gradients.size() / layers);
    for (std::int64_t e = 0; e < count; ++e) {
      for (std::int64_t n = 0; n < images_.S; ++n) {
        uses[images_.support_image(first + e, n)].push_back({e, n, true});
      }
      for (std::int64_t q = 0; q < images_.Q; ++q) {
        const std::int64_t image = images_.query_image(first + e, q);
        if (images_.query == nullptr) {
          written_[image] = 1;
        } else {
          uses[image].push_back({e, q, false});
        }
      }
    }
    in_parallel(static_cast<std::int64_t>(uses.size()), [&](std::int64_t image) {
      for (const Use& use : uses[image]) {
        for (std::size_t l = 0; l < layers; ++l) {
          const auto& of = gradients[use.e * layers + l];
          write(l, image, use.number, use.is_support ? of.support.data() : of.query);
          if (tensors_.size() == layers) continue;
          write(layers + l, image, use.number,
                use.is_support ? of.support_embedded.data() : of.query_embedded);
        }
        written_[image] = 1;
      }
    });
  }

  // Of images that no episode has.
  void finish() {
    for (std::size_t image = 0; image < written_.size(); ++image) {
      if (written_[image]) continue;
      for (std::size_t n = 0; n < tensors_.size(); ++n) {
        std::fill_n(lwfm::data_of<T>(tensors_[n]) + static_cast<std::int64_t>(image) * size_of(n),
                    size_of(n), T{0});
      }
    }
  }

 private:
  struct Use {
    std::int64_t e, number;
    bool is_support;
  };

  std::int64_t size_of(std::size_t n) const { return tensors_[n].size(1) * tensors_[n].size(2); }

  void write(std::size_t n, std::int64_t image, std::int64_t number, const T* from) {
    const std::int64_t size = size_of(n);
    T* const to = lwfm::data_of<T>(tensors_[n]) + image * size;
    const T* const grad = from + number * size;
    if (!written_[image]) {
      std::copy_n(grad, size, to);
    } else {
      for (std::int64_t k = 0; k < size; ++k) to[k] += grad[k];
    }
  }

  const EpisodeImages& images_;
  TensorList tensors_;
  std::vector<char> written_;
};

// Gradients of the outputs, contiguous, and what the forward pass recorded.
struct BackwardInputs {
  TensorList grads, recorded;

  BackwardInputs(const EncodedPool& pool, const EpisodeSizes& sizes, const EpisodeOptions& options,
                 const TensorList& given, const TensorList& record) {
    lwfm::require(given.size() == 3, "gradients of base, matching and features are needed");
    const std::vector<Sizes> shapes{
        sizes.shape({sizes.Q, sizes.way}), sizes.shape({sizes.Q, sizes.way}),
        options.features ? sizes.shape({sizes.Q, pool.channels()}) : Sizes{0}};
    for (std::size_t n = 0; n < 3; ++n) {
      lwfm::require(lwfm::has_shape(given[n], shapes[n]) &&
                        given[n].scalar_type() == pool.positions[0].scalar_type(),
                    "gradients must have the shapes and the dtype of base, matching and features");
      grads.push_back(lwfm::contiguous_of(given[n]));
    }
    const Sizes weights{sizes.E, sizes.S, 0, sizes.Q}, matches{sizes.E, sizes.Q, sizes.S, 0};
    lwfm::require(record.size() == 1 + EpisodeOutputs::kOfLayer * pool.layers() &&
                      lwfm::has_shape(record[0], {sizes.E, sizes.way, 3, sizes.Q}),
                  "recorded tensors must be those of the forward pass");
    for (std::size_t n = 1; n < record.size(); ++n) {
      const std::int64_t P = pool.P((n - 1) / EpisodeOutputs::kOfLayer);
      const std::size_t which = (n - 1) % EpisodeOutputs::kOfLayer;
      const Sizes shape = which < 2           ? Sizes{sizes.E, sizes.S, P, sizes.Q}
                          : options.matches() ? Sizes{sizes.E, sizes.Q, sizes.S, P}
                                              : Sizes{0};
      lwfm::require(lwfm::has_shape(record[n], shape),
                    "recorded tensors must be those of the forward pass");
    }
    for (const Tensor& tensor : record) recorded.push_back(lwfm::contiguous_of(tensor));
  }

  template <class T>
  lwfm::LayerRecord<T> of_layer(std::size_t l) const {
    const Tensor* const first = recorded.data() + 1 + EpisodeOutputs::kOfLayer * l;
    return {lwfm::data_of<const T>(first[0]), lwfm::data_of<const T>(first[1]),
            lwfm::data_of<const std::int32_t>(first[2]), lwfm::data_of<const T>(first[3])};
  }
};

// How many episodes are differentiated at a time, or queries of one where that is too much.
struct BackwardPlan {
  std::int64_t episodes, chunk;
};

template <class T>
BackwardPlan backward_plan(const std::vector<PoolLayer<T>>& layers, const EpisodeImages& images) {
  std::int64_t shared = 1, of_query = 1;
  for (const auto& layer : layers) {
    shared += 2 * images.S * layer.P * (layer.C + layer.D) +
              images.gram_begin(images.classes.way, layer.P);
    of_query += layer.P * (images.S * layer.P + 2 * layer.C + layer.D);
  }
  const std::int64_t budget = 2 * lwfm::kSupportBytes / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t of_episode = shared + images.Q * of_query;
  if (of_episode <= budget) return {budget / of_episode, images.Q};
  const std::int64_t unit = lwfm::kGroup<T>;
  return {1, std::min(images.Q, std::max<std::int64_t>(1, budget / of_query / unit) * unit)};
}

template <class T>
class EpisodesBackward {
 public:
  EpisodesBackward(const EncodedPool& pool, const EpisodeImages& images,
                   const EpisodeOptions& options, const BackwardInputs& inputs)
      : images_(images),
        options_(options),
        layers_(lwfm::pool_layers<T>(pool)),
        outer_{lwfm::data_of<const T>(inputs.grads[0]), lwfm::data_of<const T>(inputs.grads[1]),
               options.features ? lwfm::data_of<const T>(inputs.grads[2]) : nullptr,
               pool.channels(), lwfm::data_of<const T>(inputs.recorded[0])},
        gradients_(pool, images) {
    for (std::size_t l = 0; l < layers_.size(); ++l) records_.push_back(inputs.of_layer<T>(l));
  }

  TensorList run() {
    const BackwardPlan plan = backward_plan(layers_, images_);
    for (std::int64_t first = 0; first < images_.E && images_.Q > 0; first += plan.episodes) {
      differentiate(first, std::min(plan.episodes, images_.E - first), plan.chunk);
    }
    gradients_.finish();
    return gradients_.tensors();
  }

 private:
  using Layers = std::vector<lwfm::EpisodeGradientLayer<T>>;

  static lwfm::TileGradientWorkspace<T>& workspace() {
    thread_local lwfm::TileGradientWorkspace<T> of_thread;
    return of_thread;
  }

  // Episodes first, ..., first + count - 1.
  void differentiate(std::int64_t first, std::int64_t count, std::int64_t chunk) {
    const std::size_t L = layers_.size();
    const auto supports =
        lwfm::read_supports(layers_, images_, first, count, lwfm::InParallel{}, CpuProducts{});
    std::vector<lwfm::LayerGradient<T>> gradients(supports.size());
    in_parallel(static_cast<std::int64_t>(gradients.size()), [&](std::int64_t n) {
      gradients[n].reserve(layers_[n % L], images_, options_, chunk, gradients_.queries(n % L),
                           gradients_.queries(L + n % L));
    });
    std::vector<Layers> episodes(static_cast<std::size_t>(count));
    for (std::int64_t e = 0; e < count; ++e) {
      std::int64_t channel = 0;
      for (std::size_t l = 0; l < L; channel += layers_[l++].C) {
        const std::size_t at = e * L + l;
        episodes[e].push_back({{layers_[l], images_, options_, static_cast<std::int64_t>(l)},
                               supports[at],
                               outer_,
                               records_[l],
                               channel,
                               gradients[at],
                               first + e,
                               0,
                               chunk});
      }
    }
    if (options_.matches()) {
      in_parallel(count * images_.Q, [&](std::int64_t n) {
        lwfm::differentiate_reductions(workspace(), episodes[n / images_.Q], n % images_.Q);
      });
    }
    for (std::int64_t begin = 0; begin < images_.Q; begin += chunk) {
      differentiate_chunk(episodes, begin, std::min(chunk, images_.Q - begin));
    }
    gradients_.add(first, gradients, L);
  }

  void differentiate_chunk(std::vector<Layers>& episodes, std::int64_t begin, std::int64_t chunk) {
    for (Layers& of_episode : episodes) {
      for (auto& of : of_episode) {
        of.first_query = begin;
        of.chunk = chunk;
      }
    }
    const TileList<T> tiles(layers_, begin, chunk);
    const auto E = static_cast<std::int64_t>(episodes.size());
    in_parallel(E * tiles.per_episode(), [&](std::int64_t n) {
      tiles.run(0, n % tiles.per_episode(), [&](std::size_t l, const QueryTile& tile) {
        const auto& of = episodes[n / tiles.per_episode()][l];
        lwfm::differentiate_tile(workspace(), of, {of.e, tile.first, tile.count}, CpuProducts{});
      });
    });
    const auto L = static_cast<std::int64_t>(layers_.size());
    const std::int64_t way = images_.classes.way;
    const bool last = begin + chunk == images_.Q;
    in_parallel(E * L * way, [&](std::int64_t n) {
      lwfm::differentiate_class(workspace(), episodes[n / (L * way)][n / way % L], n % way, last,
                                CpuProducts{});
    });
  }

  const EpisodeImages& images_;
  const EpisodeOptions& options_;
  std::vector<PoolLayer<T>> layers_;
  lwfm::OuterGradients<T> outer_;
  std::vector<lwfm::LayerRecord<T>> records_;
  PoolGradients<T> gradients_;
};

// grads: of base, matching and features; recorded: what the forward pass returned after these.
TensorList episodes_backward_cpu(TensorList grads, TensorList positions, TensorList squares,
                                 TensorList grams, TensorList embedded, TensorList embedded_squares,
                                 OptionalTensor support, OptionalTensor query, Tensor order,
                                 Tensor begin, TensorList recorded, double temperature,
                                 std::int64_t top_k, bool mean_over_layers, bool merge_shots,
                                 bool features) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const EpisodeSizes sizes(pool, support, query, order, begin);
  const EpisodeOptions options =
      lwfm::episode_options(pool, temperature, top_k, mean_over_layers, merge_shots, features);
  const EpisodeImages images = lwfm::episode_images(pool, sizes, support, query, order, begin);
  const BackwardInputs inputs(pool, sizes, options, grads, recorded);
  if (pool.positions[0].scalar_type() == ScalarType::Float) {
    return EpisodesBackward<float>(pool, images, options, inputs).run();
  }
  return EpisodesBackward<double>(pool, images, options, inputs).run();
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "episodes_backward(Tensor[] grads, Tensor[] positions, Tensor[] squares, Tensor[] grams, "
      "Tensor[] embedded, Tensor[] embedded_squares, Tensor? support, Tensor? query, Tensor order, "
      "Tensor begin, Tensor[] recorded, float temperature, int top_k, bool mean_over_layers, "
      "bool merge_shots, bool features) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("episodes_backward", TORCH_BOX(&episodes_backward_cpu));
}
