// lwfm::episodes_backward: the gradients of positions and of embedded positions, from those of what
// lwfm::episodes returned and what it recorded; see episodes.cpp and
// core/matching/episode_backward.h.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "core/matching/episode_support_gradient.h"
#include "episodes_cpu.h"

namespace {

using lwfm::BackwardInputs;
using lwfm::CpuProducts;
using lwfm::EncodedPool;
using lwfm::EpisodeImages;
using lwfm::EpisodeOptions;
using lwfm::EpisodeOutputs;
using lwfm::EpisodeSizes;
using lwfm::in_parallel;
using lwfm::OptionalTensor;
using lwfm::PoolGradients;
using lwfm::PoolLayer;
using lwfm::QueryTile;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using lwfm::TileList;
using torch::stable::Tensor;

// Adds the gradients of the images of episodes to those of the pool, in the order of episodes.
template <class T>
class PoolSums {
 public:
  PoolSums(const EpisodeImages& images, const PoolGradients<T>& to)
      : images_(images), to_(to), written_(to[0].size()) {}

  // Adds those of episodes first, first + 1, ..., given layer by layer for each.
  void add(std::int64_t first, const std::vector<lwfm::LayerGradient<T>>& gradients,
           const std::vector<PoolLayer<T>>& layers) {
    const std::size_t L = layers.size();
    std::vector<std::vector<Use>> uses(written_.size());
    const auto count = static_cast<std::int64_t>(gradients.size() / L);
    for (std::int64_t e = 0; e < count; ++e) {
      for (std::int64_t n = 0; n < images_.S; ++n) {
        uses[images_.support_image(first + e, n)].push_back({e, n, true});
      }
      for (std::int64_t q = 0; q < images_.Q; ++q) {
        uses[images_.query_image(first + e, q)].push_back({e, q, false});
      }
    }
    in_parallel(static_cast<std::int64_t>(uses.size()), [&](std::int64_t image) {
      for (const Use& use : uses[image]) {
        for (std::size_t l = 0; l < L; ++l) {
          const auto& of = gradients[use.e * L + l];
          write(to_[l][image], use.of(of.positions), layers[l].P * layers[l].C, written_[image]);
          if (to_.size() == L) continue;
          write(to_[L + l][image], use.of(of.embedded), layers[l].P * layers[l].D, written_[image]);
        }
        written_[image] = 1;
      }
    });
  }

  // Of images that no episode has.
  void finish(const std::vector<PoolLayer<T>>& layers) {
    for (std::size_t image = 0; image < written_.size(); ++image) {
      for (std::size_t n = 0; !written_[image] && n < to_.size(); ++n) {
        const PoolLayer<T>& layer = layers[n % layers.size()];
        std::fill_n(to_[n][image], layer.P * (n < layers.size() ? layer.C : layer.D), T{0});
      }
    }
  }

 private:
  struct Use {
    std::int64_t e, number;
    bool is_support;

    const T* of(const lwfm::ImageGradients<T>& images) const {
      return is_support ? images.support[number] : images.query[number];
    }
  };

  static void write(T* to, const T* grad, std::int64_t size, bool written) {
    for (std::int64_t k = 0; k < size; ++k) to[k] = written ? to[k] + grad[k] : grad[k];
  }

  const EpisodeImages& images_;
  const PoolGradients<T>& to_;
  std::vector<char> written_;
};

template <class T>
lwfm::LayerRecord<T> record_of_layer(const BackwardInputs& inputs, std::size_t l) {
  const Tensor* const first = inputs.recorded.data() + 1 + EpisodeOutputs::kOfLayer * l;
  return {lwfm::data_of<const T>(first[0]), lwfm::data_of<const T>(first[1]),
          lwfm::data_of<const std::int32_t>(first[2]), lwfm::data_of<const T>(first[3])};
}

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

// Gradients of the images of an episode: with lists of images in memory of its own, because an
// image may occur several times; else where those of the pool go.
template <class T>
class EpisodeMemory {
 public:
  EpisodeMemory(const EpisodeImages& images, const PoolGradients<T>& to)
      : images_(images), to_(to) {}

  // [P, C] or [P, D] of the images, entry n of the pool's gradients, of `size` numbers each.
  lwfm::ImageGradients<T> images(std::size_t n, std::int64_t size) {
    lwfm::ImageGradients<T> all;
    T* own = nullptr;
    if (images_.query != nullptr) {
      memory_.emplace_back();
      memory_.back().reserve((images_.S + images_.Q) * size);
      own = memory_.back().data();
    }
    const auto place = [&](std::int64_t number, std::int64_t image) {
      return own == nullptr ? to_[n][image] : own + number * size;
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
  const PoolGradients<T>& to_;
  std::vector<lwfm::Uninitialized<T>> memory_;
};

template <class T>
class EpisodesBackward {
 public:
  EpisodesBackward(const EncodedPool& pool, const EpisodeImages& images,
                   const EpisodeOptions& options, const BackwardInputs& inputs,
                   const PoolGradients<T>& to)
      : images_(images),
        options_(options),
        layers_(lwfm::pool_layers<T>(pool)),
        outer_{lwfm::data_of<const T>(inputs.grads[0]), lwfm::data_of<const T>(inputs.grads[1]),
               options.features ? lwfm::data_of<const T>(inputs.grads[2]) : nullptr,
               pool.channels(), lwfm::data_of<const T>(inputs.recorded[0])},
        to_(to),
        sums_(images, to) {
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      records_.push_back(record_of_layer<T>(inputs, l));
    }
  }

  void run() {
    const BackwardPlan plan = backward_plan(layers_, images_);
    for (std::int64_t first = 0; first < images_.E && images_.Q > 0; first += plan.episodes) {
      differentiate(first, std::min(plan.episodes, images_.E - first), plan.chunk);
    }
    if (images_.query != nullptr || images_.Q == 0) sums_.finish(layers_);
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
    EpisodeMemory<T> memory(images_, to_);
    for (std::size_t n = 0; n < gradients.size(); ++n) {
      const PoolLayer<T>& layer = layers_[n % L];
      gradients[n].positions = memory.images(n % L, layer.P * layer.C);
      if (!layer.is_embedded()) continue;
      gradients[n].embedded = memory.images(L + n % L, layer.P * layer.D);
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
    if (images_.query != nullptr) sums_.add(first, gradients, layers_);
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
  std::vector<PoolLayer<T>> layers_;
  lwfm::OuterGradients<T> outer_;
  std::vector<lwfm::LayerRecord<T>> records_;
  const PoolGradients<T>& to_;
  PoolSums<T> sums_;
};

// The gradients of all images of the pool, [n, P, C] of each layer, and where those of each image
// go.
template <class T>
TensorList differentiate_pool(const EncodedPool& pool, const EpisodeImages& images,
                              const EpisodeOptions& options, const BackwardInputs& inputs) {
  TensorList grads;
  PoolGradients<T> to;
  for (const TensorList* part : {&pool.positions, &pool.embedded}) {
    for (const Tensor& x : *part) {
      grads.push_back(lwfm::empty_tensor(x, x.sizes()));
      to.push_back(lwfm::images_of<T>(grads.back()));
    }
  }
  lwfm::differentiate_episodes(pool, images, options, inputs, to);
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
  const EpisodeSizes sizes(pool, support, query, order, begin);
  const EpisodeOptions options =
      lwfm::episode_options(pool, temperature, top_k, mean_over_layers, merge_shots, features);
  const EpisodeImages images = lwfm::episode_images(pool, sizes, support, query, order, begin);
  const BackwardInputs inputs(pool, sizes, options, grads, recorded);
  return pool.positions[0].scalar_type() == ScalarType::Float
             ? differentiate_pool<float>(pool, images, options, inputs)
             : differentiate_pool<double>(pool, images, options, inputs);
}

}  // namespace

namespace lwfm {

BackwardInputs::BackwardInputs(const EncodedPool& pool, const EpisodeSizes& sizes,
                               const EpisodeOptions& options, const TensorList& given,
                               const TensorList& record) {
  require(given.size() == 3, "gradients of base, matching and features are needed");
  const std::vector<Sizes> shapes{sizes.shape({sizes.Q, sizes.way}),
                                  sizes.shape({sizes.Q, sizes.way}),
                                  sizes.shape({sizes.Q, pool.channels()})};
  for (std::size_t n = 0; n < (options.features ? 3 : 2); ++n) {
    require(
        has_shape(given[n], shapes[n]) && given[n].scalar_type() == pool.positions[0].scalar_type(),
        "gradients must have the shapes and the dtype of base, matching and features");
    grads.push_back(contiguous_of(given[n]));
  }
  require(record.size() == 1 + EpisodeOutputs::kOfLayer * pool.layers() &&
              has_shape(record[0], {sizes.E, sizes.way, 3, sizes.Q}),
          "recorded tensors must be those of the forward pass");
  for (std::size_t n = 1; n < record.size(); ++n) {
    const std::int64_t P = pool.P((n - 1) / EpisodeOutputs::kOfLayer);
    const std::size_t which = (n - 1) % EpisodeOutputs::kOfLayer;
    const Sizes shape = which < 2           ? Sizes{sizes.E, sizes.S, P, sizes.Q}
                        : options.matches() ? Sizes{sizes.E, sizes.Q, sizes.S, P}
                                            : Sizes{0};
    require(has_shape(record[n], shape), "recorded tensors must be those of the forward pass");
  }
  for (const Tensor& tensor : record) recorded.push_back(contiguous_of(tensor));
}

template <class T>
void differentiate_episodes(const EncodedPool& pool, const EpisodeImages& images,
                            const EpisodeOptions& options, const BackwardInputs& inputs,
                            const PoolGradients<T>& to) {
  EpisodesBackward<T>(pool, images, options, inputs, to).run();
}

template void differentiate_episodes(const EncodedPool&, const EpisodeImages&,
                                     const EpisodeOptions&, const BackwardInputs&,
                                     const PoolGradients<float>&);
template void differentiate_episodes(const EncodedPool&, const EpisodeImages&,
                                     const EpisodeOptions&, const BackwardInputs&,
                                     const PoolGradients<double>&);

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
