// lwfm::episodes_backward: the gradients of positions and of embedded positions, from those of what
// lwfm::episodes returned and what it recorded; see episodes.cpp and
// core/matching/episode_backward.h.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

#include "core/matching/episode_embedded_gradient.h"
#include "core/matching/episode_support_gradient.h"
#include "cpu_products.h"
#include "episodes_cpu.h"

namespace {

using lwfm::CpuProducts;
using lwfm::EmbeddedPoolGradients;
using lwfm::EncodedPool;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeOutputs;
using lwfm::EpisodeSizes;
using lwfm::in_parallel;
using lwfm::OptionalTensor;
using lwfm::PoolGradient;
using lwfm::PoolLayer;
using lwfm::QueryTile;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using lwfm::TileList;
using torch::stable::Tensor;

// Adds the gradients of the images of episodes to those of the pool, in the order of episodes.
class PoolSums {
 public:
  PoolSums(const EpisodeImages& images, std::int64_t in_pool)
      : images_(images), uses_(static_cast<std::size_t>(in_pool)) {}

  // Lists where the images of episodes first, ..., first + count - 1 are used.
  void begin(std::int64_t first, std::int64_t count) {
    for (auto& of_image : uses_) of_image.clear();
    for (std::int64_t e = 0; e < count; ++e) {
      for (std::int64_t n = 0; n < images_.S; ++n) {
        uses_[images_.support_image(first + e, n)].push_back({e, n, true});
      }
      for (std::int64_t q = 0; q < images_.Q; ++q) {
        uses_[images_.query_image(first + e, q)].push_back({e, q, false});
      }
    }
  }

  // Adds `size` numbers of each image to `to`, where `written` marks what has been written before.
  template <class T>
  void add(const std::vector<lwfm::ImageGradients<T>>& episodes, std::int64_t size,
           const PoolGradient<T>& to, std::vector<char>& written) const {
    in_parallel(static_cast<std::int64_t>(uses_.size()), [&](std::int64_t image) {
      for (const Use& use : uses_[image]) {
        const T* const grad = use.of(episodes[use.e]);
        T* const sum = to[image];
        for (std::int64_t k = 0; k < size; ++k) {
          sum[k] = written[image] != 0 ? sum[k] + grad[k] : grad[k];
        }
        written[image] = 1;
      }
    });
  }

 private:
  struct Use {
    std::int64_t e, number;
    bool is_support;

    template <class T>
    const T* of(const lwfm::ImageGradients<T>& images) const {
      return is_support ? images.support[number] : images.query[number];
    }
  };

  const EpisodeImages& images_;
  std::vector<std::vector<Use>> uses_;
};

// Zero for images that no episode has.
template <class T>
void fill_unwritten(const PoolGradient<T>& to, std::int64_t size,
                    const std::vector<char>& written) {
  for (std::size_t image = 0; image < to.size(); ++image) {
    if (written[image] == 0) std::fill_n(to[image], size, T{0});
  }
}

// How many episodes are differentiated at a time, and how many queries of each.
struct BackwardPlan {
  std::int64_t episodes, chunk;
};

// Bytes of the gradients of the products of a chunk.
constexpr std::int64_t kChunkBytes = 4 << 20;

template <class T>
BackwardPlan backward_plan(const std::vector<PoolLayer<T>>& layers, const EpisodeImages& images) {
  const std::int64_t unit = lwfm::kGroup<T>, bytes = sizeof(T);
  std::int64_t shared = 1, of_query = 1, rows = 0;
  for (const auto& layer : layers) {
    shared += 2 * images.S * layer.P * (layer.C + layer.D) +
              images.gram_begin(images.classes.way, layer.P);
    of_query += images.S * layer.P * layer.P;
    rows += layer.P * (2 * layer.C + layer.D);
  }
  const std::int64_t chunk =
      std::min(images.Q, std::max<std::int64_t>(1, kChunkBytes / bytes / of_query / unit) * unit);
  const std::int64_t of_episode = shared + chunk * of_query + images.Q * rows;
  return {std::max<std::int64_t>(1, 2 * lwfm::kSupportBytes / bytes / of_episode), chunk};
}

// Gradients of the images of an episode: with lists of images in memory of its own, because an
// image may occur several times; else where those of the pool go.
template <class T>
class EpisodeMemory {
 public:
  explicit EpisodeMemory(const EpisodeImages& images) : images_(images) {}

  // `size` numbers of each image.
  lwfm::ImageGradients<T> images(const PoolGradient<T>& to, std::int64_t size) {
    lwfm::ImageGradients<T> all;
    T* own = nullptr;
    if (images_.query != nullptr) {
      memory_.emplace_back();
      memory_.back().reserve((images_.S + images_.Q) * size);
      own = memory_.back().data();
    }
    const auto place = [&](std::int64_t number, std::int64_t image) {
      return own == nullptr ? to[image] : own + number * size;
    };
    for (std::int64_t k = 0; k < images_.S; ++k) {
      all.support.push_back(place(k, images_.classes.images[k]));
    }
    for (std::int64_t q = 0; q < images_.Q; ++q) {
      all.query.push_back(place(images_.S + q, images_.S + q));
    }
    return all;
  }

 private:
  const EpisodeImages& images_;
  std::vector<lwfm::Uninitialized<T>> memory_;
};

template <class T>
class EpisodesBackward {
 public:
  EpisodesBackward(const std::vector<PoolLayer<T>>& layers, std::int64_t pool_images,
                   const EpisodeImages& images, const EpisodeOptions& options,
                   const lwfm::OuterGradients<T>& outer,
                   const std::vector<lwfm::LayerRecord<T>>& recorded,
                   const std::vector<PoolGradient<T>>& positions,
                   const EmbeddedPoolGradients<T>& embedded)
      : images_(images),
        options_(options),
        layers_(layers),
        outer_(outer),
        records_(recorded),
        positions_(positions),
        embedded_(embedded) {
    // Without lists the gradient of each image is written once.
    if (images.query != nullptr) sums_.emplace(images, pool_images);
    if (images.query == nullptr && images.Q > 0) return;
    written_.assign(2 * layers.size(), std::vector<char>(static_cast<std::size_t>(pool_images)));
  }

  void run() {
    const BackwardPlan plan = backward_plan(layers_, images_);
    const std::int64_t E = images_.Q > 0 ? images_.E : 0;
    for (std::int64_t first = 0; first < E; first += plan.episodes) {
      differentiate(first, std::min(plan.episodes, E - first), plan.chunk);
    }
    const bool unwritten = images_.query != nullptr || E == 0;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      if (unwritten) fill_unwritten(positions_[l], layers_[l].P * layers_[l].C, written_[l]);
      if (E == 0 && layers_[l].is_embedded()) finish_embedded(l, embedded_.begin(l));
    }
  }

 private:
  using Layers = std::vector<lwfm::EpisodeGradientLayer<T>>;
  using Gradients = std::vector<lwfm::LayerGradient<T>>;

  static lwfm::TileGradientWorkspace<T>& workspace() {
    thread_local lwfm::TileGradientWorkspace<T> of_thread;
    return of_thread;
  }

  // Episodes first, ..., first + count - 1.
  void differentiate(std::int64_t first, std::int64_t count, std::int64_t chunk) {
    if (images_.query != nullptr) sums_->begin(first, count);
    Gradients gradients(static_cast<std::size_t>(count) * layers_.size());
    differentiate_positions(first, count, chunk, gradients);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      if (!layers_[l].is_embedded()) continue;
      const PoolGradient<T> to = embedded_.begin(l);
      differentiate_embedded(first, count, l, gradients, to);
      if (first + count == images_.E) finish_embedded(l, to);
    }
  }

  void finish_embedded(std::size_t l, const PoolGradient<T>& to) {
    if (images_.query != nullptr || images_.Q == 0) {
      fill_unwritten(to, layers_[l].P * layers_[l].D, written_[layers_.size() + l]);
    }
    embedded_.end(l);
  }

  void differentiate_positions(std::int64_t first, std::int64_t count, std::int64_t chunk,
                               Gradients& gradients) {
    const std::size_t L = layers_.size();
    const auto supports =
        lwfm::read_supports(layers_, images_, first, count, lwfm::InParallel{}, CpuProducts{});
    EpisodeMemory<T> memory(images_);
    for (std::size_t n = 0; n < gradients.size(); ++n) {
      const PoolLayer<T>& layer = layers_[n % L];
      gradients[n].positions = memory.images(positions_[n % L], layer.P * layer.C);
    }
    in_parallel(static_cast<std::int64_t>(gradients.size()), [&](std::int64_t n) {
      gradients[n].reserve(layers_[n % L], images_, options_, chunk);
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
    for (std::size_t l = 0; images_.query != nullptr && l < L; ++l) {
      std::vector<lwfm::ImageGradients<T>> of_episodes;
      for (std::int64_t e = 0; e < count; ++e) {
        of_episodes.push_back(gradients[e * L + l].positions);
      }
      sums_->add(of_episodes, layers_[l].P * layers_[l].C, positions_[l], written_[l]);
    }
    for (auto& gradient : gradients) gradient.release();
  }

  // The embedded positions of layer l, from the gradients of similarities.
  void differentiate_embedded(std::int64_t first, std::int64_t count, std::size_t l,
                              const Gradients& gradients, const PoolGradient<T>& to) {
    const std::size_t L = layers_.size();
    EpisodeMemory<T> memory(images_);
    std::vector<lwfm::EmbeddedGradientLayer<T>> episodes;
    for (std::int64_t e = 0; e < count; ++e) {
      episodes.push_back({{layers_[l], images_, options_, static_cast<std::int64_t>(l)},
                          records_[l],
                          gradients[e * L + l],
                          memory.images(to, layers_[l].P * layers_[l].D),
                          first + e,
                          {},
                          {},
                          {}});
    }
    in_parallel(count, [&](std::int64_t e) { episodes[e].read_norms(); });
    in_parallel(count * images_.Q, [&](std::int64_t n) {
      lwfm::differentiate_embedded_query(workspace(), episodes[n / images_.Q], n % images_.Q);
    });
    in_parallel(count * images_.S, [&](std::int64_t n) {
      lwfm::differentiate_embedded_support(workspace(), episodes[n / images_.S], n % images_.S);
    });
    if (images_.query == nullptr) return;
    std::vector<lwfm::ImageGradients<T>> of_episodes;
    for (const auto& episode : episodes) of_episodes.push_back(episode.to);
    sums_->add(of_episodes, layers_[l].P * layers_[l].D, to, written_[L + l]);
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
    in_parallel(E * L * way, [&](std::int64_t n) {
      lwfm::differentiate_class(workspace(), episodes[n / (L * way)][n / way % L], n % way,
                                CpuProducts{});
    });
  }

  const EpisodeImages& images_;
  const EpisodeOptions& options_;
  const std::vector<PoolLayer<T>>& layers_;
  const lwfm::OuterGradients<T>& outer_;
  const std::vector<lwfm::LayerRecord<T>>& records_;
  const std::vector<PoolGradient<T>>& positions_;
  const EmbeddedPoolGradients<T>& embedded_;
  std::optional<PoolSums> sums_;            // with lists of images
  std::vector<std::vector<char>> written_;  // of positions of each layer, then of embedded ones
};

// Gradients of the outputs and what the forward pass recorded, contiguous.
struct BackwardInputs {
  TensorList grads, recorded;

  BackwardInputs(const EncodedPool& pool, const EpisodeSizes& sizes, const EpisodeOptions& options,
                 const TensorList& given, const TensorList& record) {
    lwfm::require(given.size() == 3, "gradients of base, matching and features are needed");
    const std::vector<Sizes> shapes{sizes.shape({sizes.Q, sizes.way}),
                                    sizes.shape({sizes.Q, sizes.way}),
                                    sizes.shape({sizes.Q, pool.channels()})};
    for (std::size_t n = 0; n < (options.features ? 3 : 2); ++n) {
      lwfm::require(lwfm::has_shape(given[n], shapes[n]) &&
                        given[n].scalar_type() == pool.positions[0].scalar_type(),
                    "gradients must have the shapes and the dtype of base, matching and features");
      grads.push_back(lwfm::contiguous_of(given[n]));
    }
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
  lwfm::OuterGradients<T> outer(std::int64_t channels) const {
    return {lwfm::data_of<const T>(grads[0]), lwfm::data_of<const T>(grads[1]),
            grads.size() > 2 ? lwfm::data_of<const T>(grads[2]) : nullptr, channels,
            lwfm::data_of<const T>(recorded[0])};
  }

  template <class T>
  std::vector<lwfm::LayerRecord<T>> records() const {
    std::vector<lwfm::LayerRecord<T>> all;
    for (std::size_t n = 1; n < recorded.size(); n += EpisodeOutputs::kOfLayer) {
      all.push_back({lwfm::data_of<const T>(recorded[n]), lwfm::data_of<const T>(recorded[n + 1]),
                     lwfm::data_of<const std::int32_t>(recorded[n + 2]),
                     lwfm::data_of<const T>(recorded[n + 3])});
    }
    return all;
  }
};

// The gradients of all images of the pool, [n, P, C] of each layer, and where those of each image
// go.
template <class T>
TensorList differentiate_pool(const EncodedPool& pool, const EpisodeImages& images,
                              const EpisodeOptions& options, const BackwardInputs& inputs) {
  TensorList grads;
  std::vector<PoolGradient<T>> to;
  for (const TensorList* part : {&pool.positions, &pool.embedded}) {
    for (const Tensor& x : *part) {
      grads.push_back(lwfm::empty_tensor(x, x.sizes()));
      to.push_back(lwfm::images_of<T>(grads.back()));
    }
  }
  lwfm::differentiate_episodes<T>(
      lwfm::pool_layers<T>(pool), pool.images(), images, options, inputs.outer<T>(pool.channels()),
      inputs.records<T>(), to,
      {[&](std::size_t l) { return to[pool.layers() + l]; }, [](std::size_t) {}});
  return grads;
}

// grads: of base, matching and features; recorded: what the forward pass returned after these.
TensorList episodes_backward_cpu(TensorList grads, TensorList positions, TensorList squares,
                                 TensorList grams, TensorList embedded, TensorList embedded_squares,
                                 OptionalTensor support, OptionalTensor query, Tensor order,
                                 Tensor begin, TensorList recorded, double temperature,
                                 std::int64_t top_k, bool mean_over_layers, bool merge_shots,
                                 bool features) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const EpisodeSizes sizes(pool.images(), support, query, order, begin);
  const EpisodeOptions options = lwfm::episode_options(
      pool.positions_of_layers(), temperature, top_k, mean_over_layers, merge_shots, features);
  const EpisodeImages images =
      lwfm::episode_images(pool.images(), sizes, support, query, order, begin);
  const BackwardInputs inputs(pool, sizes, options, grads, recorded);
  return pool.positions[0].scalar_type() == ScalarType::Float
             ? differentiate_pool<float>(pool, images, options, inputs)
             : differentiate_pool<double>(pool, images, options, inputs);
}

}  // namespace

namespace lwfm {

template <class T>
void differentiate_episodes(const std::vector<PoolLayer<T>>& layers, std::int64_t pool_images,
                            const EpisodeImages& images, const EpisodeOptions& options,
                            const OuterGradients<T>& outer,
                            const std::vector<LayerRecord<T>>& recorded,
                            const std::vector<PoolGradient<T>>& positions,
                            const EmbeddedPoolGradients<T>& embedded) {
  EpisodesBackward<T>(layers, pool_images, images, options, outer, recorded, positions, embedded)
      .run();
}

template void differentiate_episodes(const std::vector<PoolLayer<float>>&, std::int64_t,
                                     const EpisodeImages&, const EpisodeOptions&,
                                     const OuterGradients<float>&,
                                     const std::vector<LayerRecord<float>>&,
                                     const std::vector<PoolGradient<float>>&,
                                     const EmbeddedPoolGradients<float>&);
template void differentiate_episodes(const std::vector<PoolLayer<double>>&, std::int64_t,
                                     const EpisodeImages&, const EpisodeOptions&,
                                     const OuterGradients<double>&,
                                     const std::vector<LayerRecord<double>>&,
                                     const std::vector<PoolGradient<double>>&,
                                     const EmbeddedPoolGradients<double>&);

}  // namespace lwfm

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
