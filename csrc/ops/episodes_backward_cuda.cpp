// lwfm::episodes_backward on CUDA tensors; the contract is in episodes_backward.cpp, what is
// recorded in episodes_cuda.h.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

#include "episodes_cuda.h"

namespace {

using namespace lwfm::episodes_on_cuda;
using lwfm::data_of;
using lwfm::EncodedPool;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

// Gradients of images [n, P, C] of the pool, summed over parts.
class PoolGradient {
 public:
  PoolGradient(const Inputs& in, const Tensor& images, bool several) : in_(in), images_(images) {
    if (!in.sizes.listed) total_ = lwfm::empty_like(images, shape());
    several_ = several;
  }

  // Where the gradients of a part go.
  Sides place(const Part& part) const {
    const std::int64_t P = images_.size(1), C = images_.size(2);
    if (in_.sizes.listed) {
      const std::int64_t count = part.episodes * (in_.sizes.S + part.queries);
      return {in_, part, lwfm::empty_like(images_, {count, P, C}), true};
    }
    Sides place(in_, part, *total_, false);
    if (several_) place.support = lwfm::empty_like(images_, {1, in_.sizes.S * P, C});
    return place;
  }

  void add(const Sides& part, const OptionalTensor& rows) {
    if (rows.has_value()) {
      sum(total_, lwfm::select_rows_backward(part.all, *rows, images_.size(0)));
    } else if (several_) {
      sum(support_, part.support);
    }
  }

  Tensor finish() {
    if (!total_.has_value()) return torch::stable::new_zeros(images_, shape());
    if (support_.has_value()) {
      Tensor to = lwfm::narrow(*total_, 0, 0, in_.sizes.S);
      torch::stable::copy_(
          to, torch::stable::view(*support_, {in_.sizes.S, images_.size(1), images_.size(2)}));
    }
    return *total_;
  }

 private:
  Sizes shape() const { return {images_.size(0), images_.size(1), images_.size(2)}; }
  static void sum(OptionalTensor& total, const Tensor& part) {
    total = total.has_value() ? torch::stable::subtract(*total, part, -1.0) : part;
  }

  const Inputs& in_;
  const Tensor& images_;
  OptionalTensor total_, support_;
  bool several_;
};

// Memory of the gradients of a part of one layer.
struct LayerGradient {
  Sides x, to;
  Tensor products, squares;  // squares: of rows and of columns, then what is along them
  std::optional<Sides> embedded, to_embedded;
  OptionalTensor embedded_products;

  LayerGradient(const Inputs& in, const Part& part, std::size_t l, const OptionalTensor& rows,
                const PoolGradient& positions, const PoolGradient* embedded_positions)
      : x(gather(in, part, in.pool.positions[l], rows)), to(positions.place(part)) {
    const Sizes shape{part.episodes, x.query.size(1), x.support.size(1)};
    products = lwfm::empty_like(x.all, shape);
    const bool matched = embedded_positions != nullptr;
    squares = lwfm::empty_like(x.all,
                               {matched ? 4 : 2, part.episodes * part.queries * x.support.size(1)});
    if (!matched) return;
    embedded_products = lwfm::empty_like(x.all, shape);
    embedded.emplace(gather(in, part, in.pool.embedded[l], rows));
    to_embedded.emplace(embedded_positions->place(part));
  }

  template <class T>
  lwfm::EpisodeLayerGradients<T> arguments() const {
    T* const first = data_of<T>(squares);
    const std::int64_t step = squares.size(1);
    lwfm::EpisodeLayerGradients<T> all{};
    all.products = data_of<T>(products);
    all.row_squares = first;
    all.column_squares = first + step;
    all.support = data_of<T>(to.support);
    all.query = data_of<T>(to.query);
    if (!embedded.has_value()) return all;
    all.embedded_products = data_of<T>(*embedded_products);
    all.row_along = first + 2 * step;
    all.column_along = first + 3 * step;
    all.support_embedded = data_of<T>(to_embedded->support);
    all.query_embedded = data_of<T>(to_embedded->query);
    return all;
  }

  void multiply() const {
    lwfm::multiply_batch(lwfm::transposed(products), x.query, to.support);
    lwfm::multiply_batch(products, x.support, to.query);
    if (!embedded.has_value()) return;
    lwfm::multiply_batch(lwfm::transposed(*embedded_products), embedded->query,
                         to_embedded->support);
    lwfm::multiply_batch(*embedded_products, embedded->support, to_embedded->query);
  }
};

// Checked and contiguous: gradients of base, matching and features, and what was recorded.
struct BackwardInputs {
  TensorList grads, record;

  BackwardInputs(const Inputs& in, const TensorList& given, const TensorList& recorded) {
    const Sizes similarities = in.sizes.shape({in.sizes.Q, in.sizes.way});
    const Sizes features =
        in.options.features ? in.sizes.shape({in.sizes.Q, in.pool.channels()}) : Sizes{0};
    const RecordShapes shapes(in, in.sizes.E, in.sizes.Q);
    std::vector<Sizes> expected{shapes.sums};
    for (std::size_t l = 0; l < in.pool.layers(); ++l) {
      for (const auto* of : {&shapes.rows, &shapes.rows, &shapes.matches, &shapes.matches}) {
        expected.push_back((*of)[l]);
      }
    }
    read(in, given, {similarities, similarities, features}, grads,
         "gradients must be those of base, matching and features");
    read(in, recorded, expected, record, "recorded tensors must be those of the forward pass");
  }

 private:
  static void read(const Inputs& in, const TensorList& from, const std::vector<Sizes>& shapes,
                   TensorList& to, const char* message) {
    lwfm::require(from.size() == shapes.size(), message);
    for (std::size_t n = 0; n < from.size(); ++n) {
      lwfm::require(from[n].dim() == static_cast<std::int64_t>(shapes[n].size()) &&
                        lwfm::has_shape(from[n], shapes[n]),
                    message);
      lwfm::require_same_device(in.pool.positions[0], from[n], "every gradient");
      to.push_back(torch::stable::contiguous(from[n]));
    }
  }
};

template <class T>
void differentiate_part(const Inputs& in, const Part& part, const BackwardInputs& from,
                        const std::vector<LayerGradient>& layers, void* stream) {
  std::vector<Products> products;
  for (const LayerGradient& layer : layers) products.emplace_back(in, part, layer.x);
  lwfm::EpisodeGradientArguments<T> arguments{};
  arguments.of = kernel_arguments<T>(in, part, products, Record(from.record));
  const std::int64_t first = first_row(in, part);
  arguments.base = data_of<const T>(from.grads[0]) + first * in.sizes.way;
  arguments.matching = data_of<const T>(from.grads[1]) + first * in.sizes.way;
  if (in.options.features) {
    arguments.features = data_of<const T>(from.grads[2]) + first * in.pool.channels();
  }
  for (std::size_t l = 0; l < layers.size(); ++l) arguments.to[l] = layers[l].arguments<T>();
  const Tensor terms =
      lwfm::empty_like(in.pool.positions[0], {part.episodes, part.queries, in.sizes.way, 3});
  arguments.terms = data_of<T>(terms);
  const OptionalTensor workspace = workspace_of(in, lwfm::episode_gradient_workspace(arguments.of));
  if (workspace.has_value()) arguments.of.workspace = workspace->mutable_data_ptr();
  lwfm::require_launched(lwfm::differentiate_episodes(arguments, stream), "episodes_backward");
  for (const LayerGradient& layer : layers) layer.multiply();
  lwfm::require_launched(lwfm::finish_episode_gradients(arguments, stream), "episodes_backward");
}

TensorList episodes_backward_cuda(TensorList grads, TensorList positions, TensorList squares,
                                  TensorList grams, TensorList embedded,
                                  TensorList embedded_squares, OptionalTensor support,
                                  OptionalTensor query, Tensor order, Tensor begin,
                                  TensorList recorded, double temperature, std::int64_t top_k,
                                  bool mean_over_layers, bool merge_shots, bool features) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const Inputs in(pool, support, query, order, begin,
                  lwfm::episode_options(pool.positions_of_layers(), temperature, top_k,
                                        mean_over_layers, merge_shots, features));
  const BackwardInputs from(in, grads, recorded);
  const lwfm::OnDeviceOf device(pool.positions[0]);
  const bool matched = in.embedded() && in.options.matches();
  const std::size_t L = pool.layers();
  std::vector<Part> parts;
  if (in.sizes.E * in.sizes.Q > 0) parts = parts_of(in, matched ? 3 : 2);
  std::vector<PoolGradient> sums;
  for (const TensorList* images : {&in.pool.positions, &in.pool.embedded}) {
    for (const Tensor& x : *images) sums.emplace_back(in, x, parts.size() > 1);
  }
  for (const Part& part : parts) {
    const OptionalTensor rows = rows_of(in, part);
    std::vector<LayerGradient> layers;
    for (std::size_t l = 0; l < L; ++l) {
      layers.emplace_back(in, part, l, rows, sums[l], matched ? &sums[L + l] : nullptr);
    }
    lwfm::for_dtype(pool.positions[0], [&](auto number) {
      differentiate_part<decltype(number)>(in, part, from, layers, device.stream());
    });
    for (std::size_t l = 0; l < L; ++l) {
      sums[l].add(layers[l].to, rows);
      if (matched) sums[L + l].add(*layers[l].to_embedded, rows);
    }
  }
  TensorList all;
  for (std::size_t n = 0; n < sums.size(); ++n) {
    const Tensor& images = n < L ? in.pool.positions[n] : in.pool.embedded[n - L];
    const bool written = !parts.empty() && (n < L || matched);
    all.push_back(written ? sums[n].finish()
                          : torch::stable::new_zeros(
                                images, {images.size(0), images.size(1), images.size(2)}));
  }
  return all;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("episodes_backward", TORCH_BOX(&episodes_backward_cuda));
}

#endif
