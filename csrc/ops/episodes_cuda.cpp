// lwfm::episodes and its backward on CUDA tensors; the contract is in episodes.cpp, except that
// lists are not checked, because that would wait for the device, that a query without an assignment
// has similarities of NaN, and that what is recorded has another layout: see RecordShapes.
#if LWFM_WITH_CUDA

#include <torch/csrc/stable/library.h>

#include <optional>

#include "cuda/episode_kernels.h"
#include "cuda_products.h"
#include "device.h"
#include "episodes.h"

namespace {

using lwfm::data_of;
using lwfm::EncodedPool;
using lwfm::EpisodeOptions;
using lwfm::EpisodeSizes;
using lwfm::ScalarType;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Bytes of what is gathered and multiplied at a time.
constexpr std::int64_t kEpisodeBytes = 256 << 20;

// The inputs of both passes.
struct Inputs {
  EncodedPool pool;
  OptionalTensor support, query;
  Tensor order, begin;
  EpisodeSizes sizes;
  EpisodeOptions options;

  Inputs(const EncodedPool& images, const OptionalTensor& supports, const OptionalTensor& queries,
         const Tensor& sorted, const Tensor& classes, const EpisodeOptions& choices)
      : pool(images),
        support(supports),
        query(queries),
        order(sorted),
        begin(classes),
        sizes(pool, support, query, order, begin),
        options(choices) {
    const Tensor& first = pool.positions[0];
    for (const TensorList* part :
         {&pool.positions, &pool.squares, &pool.grams, &pool.embedded, &pool.embedded_squares}) {
      for (const Tensor& tensor : *part) lwfm::require_same_device(first, tensor, "every image");
    }
    for (const Tensor& list : {order, begin, support.value_or(order), query.value_or(order)}) {
      lwfm::require_same_device(first, list, "every list");
    }
    lwfm::require(
        pool.layers() <= lwfm::kMaxEpisodeLayers,
        "episodes on CUDA have at most " + std::to_string(lwfm::kMaxEpisodeLayers) + " layers");
    for (std::size_t l = 0; l < pool.layers(); ++l) (void)lwfm::as_int(pool.P(l));
  }

  bool embedded() const { return !pool.embedded.empty(); }
  std::int64_t D(std::size_t l) const { return embedded() ? pool.embedded[l].size(2) : 0; }
};

// What the forward pass records, after base, matching and features.
struct RecordShapes {
  Sizes sums;                  // [E, Q, 3 way + layers problems], see EpisodeArguments
  std::vector<Sizes> rows;     // of a and b of each layer: [E, Q, S, P]
  std::vector<Sizes> matches;  // of assignment and cosines, the same or empty

  RecordShapes(const Inputs& in, std::int64_t E, std::int64_t Q) {
    const EpisodeSizes& sizes = in.sizes;
    const auto layers = static_cast<std::int64_t>(in.pool.layers());
    const std::int64_t problems = in.options.merge_shots ? sizes.way : sizes.S;
    sums = {E, Q, 3 * sizes.way + layers * problems};
    for (std::size_t l = 0; l < in.pool.layers(); ++l) {
      rows.push_back({E, Q, sizes.S, in.pool.P(l)});
      matches.push_back(in.options.matches() ? rows.back() : Sizes{0});
    }
  }
};

// Episodes first, ..., first + episodes - 1, or some queries of one: what is processed at a time.
struct Part {
  std::int64_t first, episodes, first_query, queries;
};

// `copies`: of how many products, and of how many positions, a pass needs room for at a time.
std::vector<Part> parts_of(const Inputs& in, std::int64_t copies) {
  const EpisodeSizes& sizes = in.sizes;
  const std::int64_t number = in.pool.positions[0].scalar_type() == ScalarType::Float ? 4 : 8;
  std::int64_t of_support = 0, of_query = 0;
  for (std::size_t l = 0; l < in.pool.layers(); ++l) {
    const std::int64_t P = in.pool.P(l), rows = sizes.S * P;
    const std::int64_t gathered = sizes.listed ? copies * P * (in.pool.C(l) + in.D(l)) : 0;
    of_support += number * (rows * rows + sizes.S * gathered);
    of_query += number * ((copies * P + 4) * rows + gathered);  // weights and the like, too
  }
  const std::int64_t of_episode = of_support + sizes.Q * of_query;
  std::vector<Part> parts;
  if (of_episode <= kEpisodeBytes || sizes.Q <= 1) {
    const std::int64_t at_a_time =
        std::max<std::int64_t>(1, kEpisodeBytes / std::max<std::int64_t>(1, of_episode));
    for (std::int64_t e = 0; e < sizes.E; e += at_a_time) {
      parts.push_back({e, std::min(at_a_time, sizes.E - e), 0, sizes.Q});
    }
    return parts;
  }
  const std::int64_t at_a_time = std::max<std::int64_t>(1, (kEpisodeBytes - of_support) / of_query);
  for (std::int64_t e = 0; e < sizes.E; ++e) {
    for (std::int64_t q = 0; q < sizes.Q; q += at_a_time) {
      parts.push_back({e, 1, q, std::min(at_a_time, sizes.Q - q)});
    }
  }
  return parts;
}

// The images of a part in the pool: support images of all episodes, then queries; none without
// lists.
OptionalTensor rows_of(const Inputs& in, const Part& part) {
  if (!in.sizes.listed) return std::nullopt;
  const auto flat = [&](const Tensor& list, std::int64_t first, std::int64_t count) {
    const Tensor some =
        lwfm::narrow(lwfm::narrow(list, 0, part.first, part.episodes), 1, first, count);
    return torch::stable::reshape(some, {part.episodes * count});
  };
  return lwfm::concatenate(
      {flat(*in.support, 0, in.sizes.S), flat(*in.query, part.first_query, part.queries)});
}

// Numbers of both sides of a part, [E, S P, C] and [E, Q P, C]; views of `all`.
struct Sides {
  Tensor all, support, query;

  // `images` [n, P, C] of the pool, or [E (S + Q), P, C] of a part.
  Sides(const Inputs& in, const Part& part, const Tensor& images, bool gathered) : all(images) {
    const std::int64_t P = images.size(1), C = images.size(2), E = part.episodes, S = in.sizes.S;
    const std::int64_t begin = gathered ? E * S : S + part.first_query;
    support = torch::stable::view(lwfm::narrow(all, 0, 0, E * S), {E, S * P, C});
    query = torch::stable::view(lwfm::narrow(all, 0, begin, E * part.queries),
                                {E, part.queries * P, C});
  }
};

Sides gather(const Inputs& in, const Part& part, const Tensor& pool, const OptionalTensor& rows) {
  if (!rows.has_value()) return {in, part, pool, false};
  return {in, part, lwfm::select_rows(pool, *rows), true};
}

// Products of a layer's positions: of support images with one another, of queries with them.
struct Products {
  Tensor memory;
  std::int64_t own;  // where those with queries begin

  Products(const Inputs& in, const Part& part, const Sides& x) {
    const std::int64_t rows = x.support.size(1), columns = x.query.size(1), E = part.episodes;
    own = E * rows * rows;
    memory = lwfm::empty_like(x.all, {own + E * rows * columns});
    const Tensor supports = lwfm::transposed(x.support);
    if (!in.sizes.listed && part.queries == in.sizes.Q) {  // one product of all images
      const std::int64_t all = x.all.size(0) * x.all.size(1);
      lwfm::multiply_batch(torch::stable::view(x.all, {1, all, x.all.size(2)}), supports,
                           torch::stable::view(memory, {1, all, rows}));
      return;
    }
    const auto place = [&](std::int64_t first, std::int64_t height) {
      return torch::stable::view(lwfm::narrow(memory, 0, first, E * height * rows),
                                 {E, height, rows});
    };
    lwfm::multiply_batch(x.support, supports, place(0, rows));
    lwfm::multiply_batch(x.query, supports, place(own, columns));
  }
};

// Where queries of a part begin in what has rows of all queries.
std::int64_t first_row(const Inputs& in, const Part& part) {
  return part.first * in.sizes.Q + part.first_query;
}

// What kernels record: sums, then a and b of each layer; assignment and cosines of each layer if
// the backward pass reads them. Of all queries, or of those of a part.
struct Record {
  TensorList tensors;
  bool of_part;

  Record(const Inputs& in, const RecordShapes& shapes, bool matches) : of_part(false) {
    const Tensor& like = in.pool.positions[0];
    tensors.push_back(lwfm::empty_like(like, shapes.sums));
    for (std::size_t l = 0; l < in.pool.layers(); ++l) {
      for (int k = 0; k < 2; ++k) tensors.push_back(lwfm::empty_like(like, shapes.rows[l]));
      if (!matches) continue;
      tensors.push_back(torch::stable::new_empty(like, shapes.matches[l], ScalarType::Int));
      tensors.push_back(lwfm::empty_like(like, shapes.matches[l]));
    }
  }
  explicit Record(const TensorList& recorded) : tensors(recorded), of_part(false) {}

  // Without what the backward pass reads.
  static Record of(const Inputs& in, const Part& part) {
    Record record(in, RecordShapes(in, part.episodes, part.queries), false);
    record.of_part = true;
    return record;
  }
};

template <class T>
lwfm::EpisodeArguments<T> kernel_arguments(const Inputs& in, const Part& part,
                                           const std::vector<Products>& products,
                                           const Record& record) {
  using Index = const std::int64_t;
  const EpisodeSizes& sizes = in.sizes;
  lwfm::EpisodeArguments<T> to{};
  to.lists = {in.pool.images(),
              part.episodes,
              sizes.S,
              part.queries,
              sizes.way,
              data_of<Index>(in.order),
              data_of<Index>(in.begin),
              nullptr,
              nullptr,
              part.first_query};
  if (sizes.listed) {
    to.lists.support = data_of<Index>(*in.support) + part.first * sizes.S;
    to.lists.query = data_of<Index>(*in.query) + first_row(in, part);
  }
  const EpisodeOptions& options = in.options;
  to.choices = {!std::isinf(options.temperature), options.temperature,
                static_cast<int>(options.top_k), options.mean_over_layers, options.merge_shots};
  to.layers = static_cast<int>(in.pool.layers());
  const std::int64_t row = record.of_part ? 0 : first_row(in, part);
  to.sums = data_of<T>(record.tensors[0]) + row * record.tensors[0].size(2);
  const std::size_t of_layer = (record.tensors.size() - 1) / in.pool.layers();
  for (std::size_t l = 0; l < in.pool.layers(); ++l) {
    auto& layer = to.of[l];
    layer.P = static_cast<int>(in.pool.P(l));
    layer.C = in.pool.C(l);
    layer.D = in.D(l);
    layer.class_products = data_of<const T>(products[l].memory);
    layer.products = layer.class_products + products[l].own;
    layer.positions = data_of<const T>(in.pool.positions[l]);
    layer.squares = data_of<const T>(in.pool.squares[l]);
    layer.grams = data_of<const T>(in.pool.grams[l]);
    if (in.embedded()) {
      layer.embedded = data_of<const T>(in.pool.embedded[l]);
      layer.embedded_squares = data_of<const T>(in.pool.embedded_squares[l]);
    }
    const Tensor* const of = record.tensors.data() + 1 + of_layer * l;
    const std::int64_t first = row * sizes.S * layer.P;
    layer.a = data_of<T>(of[0]) + first;
    layer.b = data_of<T>(of[1]) + first;
    if (of_layer < 4 || !options.matches()) continue;
    layer.assignment = data_of<std::int32_t>(of[2]) + first;
    layer.cosines = data_of<T>(of[3]) + first;
  }
  return to;
}

OptionalTensor workspace_of(const Inputs& in, std::size_t bytes) {
  if (bytes == 0) return std::nullopt;
  return torch::stable::new_empty(in.pool.positions[0], {static_cast<std::int64_t>(bytes)},
                                  ScalarType::Byte);
}

template <class T>
void compare_part(const Inputs& in, const Part& part, const TensorList& outputs,
                  const Record& record, void* stream) {
  const OptionalTensor rows = rows_of(in, part);
  std::vector<Products> products;
  for (const Tensor& x : in.pool.positions)
    products.emplace_back(in, part, gather(in, part, x, rows));
  lwfm::EpisodeArguments<T> arguments = kernel_arguments<T>(in, part, products, record);
  const std::int64_t first = first_row(in, part);
  arguments.base = data_of<T>(outputs[0]) + first * in.sizes.way;
  arguments.matching = data_of<T>(outputs[1]) + first * in.sizes.way;
  if (in.options.features) arguments.features = data_of<T>(outputs[2]) + first * in.pool.channels();
  const OptionalTensor workspace = workspace_of(in, lwfm::episode_workspace(arguments));
  if (workspace.has_value()) arguments.workspace = workspace->mutable_data_ptr();
  lwfm::require_launched(lwfm::compare_episodes(arguments, stream), "episodes");
}

TensorList episodes_cuda(TensorList positions, TensorList squares, TensorList grams,
                         TensorList embedded, TensorList embedded_squares, OptionalTensor support,
                         OptionalTensor query, Tensor order, Tensor begin, double temperature,
                         std::int64_t top_k, bool mean_over_layers, bool merge_shots, bool features,
                         bool record) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const Inputs in(
      pool, support, query, order, begin,
      lwfm::episode_options(pool, temperature, top_k, mean_over_layers, merge_shots, features));
  const Tensor& like = pool.positions[0];
  const lwfm::OnDeviceOf device(like);
  const Sizes similarities = in.sizes.shape({in.sizes.Q, in.sizes.way});
  TensorList outputs{
      lwfm::empty_like(like, similarities), lwfm::empty_like(like, similarities),
      lwfm::empty_like(like, features ? in.sizes.shape({in.sizes.Q, pool.channels()}) : Sizes{0})};
  const RecordShapes shapes(in, in.sizes.E, in.sizes.Q);
  std::optional<Record> recorded;
  if (record) recorded.emplace(in, shapes, true);
  if (in.sizes.E * in.sizes.Q > 0) {
    for (const Part& part : parts_of(in, 1)) {
      lwfm::for_dtype(like, [&](auto number) {
        compare_part<decltype(number)>(in, part, outputs, record ? *recorded : Record::of(in, part),
                                       device.stream());
      });
    }
  }
  if (record) {
    outputs.insert(outputs.end(), recorded->tensors.begin(), recorded->tensors.end());
  } else {
    outputs.push_back(lwfm::empty_like(like, Sizes{0}));
  }
  return outputs;
}

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
  const Inputs in(
      pool, support, query, order, begin,
      lwfm::episode_options(pool, temperature, top_k, mean_over_layers, merge_shots, features));
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
  library.impl("episodes", TORCH_BOX(&episodes_cuda));
  library.impl("episodes_backward", TORCH_BOX(&episodes_backward_cuda));
}

#endif
