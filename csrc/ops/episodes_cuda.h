// What both passes of lwfm::episodes on CUDA share: which episodes are processed at a time, their
// products, and tensors as the arguments of kernels. Only for builds with CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda/episode_kernels.h"
#include "cuda/fused_plan.h"
#include "cuda_products.h"
#include "device.h"
#include "episodes.h"

namespace lwfm::episodes_on_cuda {

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
        sizes(pool.images(), support, query, order, begin),
        options(choices) {
    const Tensor& first = pool.positions[0];
    for (const TensorList* part :
         {&pool.positions, &pool.squares, &pool.grams, &pool.embedded, &pool.embedded_squares}) {
      for (const Tensor& tensor : *part) require_same_device(first, tensor, "every image");
    }
    for (const Tensor& list : {order, begin, support.value_or(order), query.value_or(order)}) {
      require_same_device(first, list, "every list");
    }
    require(pool.layers() <= kMaxEpisodeLayers, "episodes on CUDA have at most ",
            std::to_string(kMaxEpisodeLayers), " layers");
    for (std::size_t l = 0; l < pool.layers(); ++l) (void)as_int(pool.P(l));
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
// None: neither is in memory.
inline std::vector<Part> parts_of(const Inputs& in, std::int64_t copies) {
  const EpisodeSizes& sizes = in.sizes;
  const std::int64_t number = in.pool.positions[0].scalar_type() == ScalarType::Float ? 4 : 8;
  std::int64_t of_support = 0, of_query = 0;
  for (std::size_t l = 0; l < in.pool.layers(); ++l) {
    const std::int64_t P = in.pool.P(l), rows = sizes.S * P;
    const std::int64_t gathered = sizes.listed ? copies * P * (in.pool.C(l) + in.D(l)) : 0;
    of_support += number * ((copies > 0 ? rows * rows : 0) + sizes.S * gathered);
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
inline OptionalTensor rows_of(const Inputs& in, const Part& part) {
  if (!in.sizes.listed) return std::nullopt;
  const auto flat = [&](const Tensor& list, std::int64_t first, std::int64_t count) {
    const Tensor some =
        lwfm::narrow(lwfm::narrow(list, 0, part.first, part.episodes), 1, first, count);
    return torch::stable::reshape(some, {part.episodes * count});
  };
  return concatenate(
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

inline Sides gather(const Inputs& in, const Part& part, const Tensor& pool,
                    const OptionalTensor& rows) {
  if (!rows.has_value()) return {in, part, pool, false};
  return {in, part, select_rows(pool, *rows), true};
}

// Products of a layer's positions: of support images with one another, of queries with them.
struct Products {
  Tensor memory;
  std::int64_t own;  // where those with queries begin

  Products(const Inputs& in, const Part& part, const Sides& x) {
    const std::int64_t rows = x.support.size(1), columns = x.query.size(1), E = part.episodes;
    own = E * rows * rows;
    memory = empty_like(x.all, {own + E * rows * columns});
    const Tensor supports = transposed(x.support);
    if (!in.sizes.listed && part.queries == in.sizes.Q) {  // one product of all images
      const std::int64_t all = x.all.size(0) * x.all.size(1);
      multiply_batch(torch::stable::view(x.all, {1, all, x.all.size(2)}), supports,
                     torch::stable::view(memory, {1, all, rows}));
      return;
    }
    const auto place = [&](std::int64_t first, std::int64_t height) {
      return torch::stable::view(lwfm::narrow(memory, 0, first, E * height * rows),
                                 {E, height, rows});
    };
    multiply_batch(x.support, supports, place(0, rows));
    multiply_batch(x.query, supports, place(own, columns));
  }
};

// Where queries of a part begin in what has rows of all queries.
inline std::int64_t first_row(const Inputs& in, const Part& part) {
  return part.first * in.sizes.Q + part.first_query;
}

// What kernels record: sums, then a and b of each layer; assignment and cosines of each layer if
// the backward pass reads them. Of all queries, or of those of a part.
struct Record {
  TensorList tensors;
  bool of_part;

  Record(const Inputs& in, const RecordShapes& shapes, bool matches) : of_part(false) {
    const Tensor& like = in.pool.positions[0];
    tensors.push_back(empty_like(like, shapes.sums));
    for (std::size_t l = 0; l < in.pool.layers(); ++l) {
      for (int k = 0; k < 2; ++k) tensors.push_back(empty_like(like, shapes.rows[l]));
      if (!matches) continue;
      tensors.push_back(torch::stable::new_empty(like, shapes.matches[l], ScalarType::Int));
      tensors.push_back(empty_like(like, shapes.matches[l]));
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

// The lists of a part.
inline EpisodeLists lists_of(const Inputs& in, const Part& part) {
  using Index = const std::int64_t;
  EpisodeLists lists{in.pool.images(),
                     part.episodes,
                     in.sizes.S,
                     part.queries,
                     in.sizes.way,
                     data_of<Index>(in.order),
                     data_of<Index>(in.begin),
                     nullptr,
                     nullptr,
                     part.first_query};
  if (in.sizes.listed) {
    lists.support = data_of<Index>(*in.support) + part.first * in.sizes.S;
    lists.query = data_of<Index>(*in.query) + first_row(in, part);
  }
  return lists;
}

// What the choice between both ways depends on.
inline EpisodesShape shape_of(const Inputs& in) {
  EpisodesShape shape{lists_of(in, {0, in.sizes.E, 0, in.sizes.Q}),
                      in.options.merge_shots && in.options.matches(),
                      {},
                      in.pool.positions[0].scalar_type() == ScalarType::Float ? 4 : 8};
  for (std::size_t l = 0; l < in.pool.layers(); ++l) {
    shape.layers.push_back({in.pool.P(l), in.pool.C(l)});
  }
  return shape;
}

// `products`: none for the kernel that multiplies positions itself.
template <class T>
EpisodeArguments<T> kernel_arguments(const Inputs& in, const Part& part,
                                     const std::vector<Products>& products, const Record& record) {
  EpisodeArguments<T> to{};
  to.lists = lists_of(in, part);
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
    if (!products.empty()) {
      layer.class_products = data_of<const T>(products[l].memory);
      layer.products = layer.class_products + products[l].own;
    }
    layer.positions = data_of<const T>(in.pool.positions[l]);
    layer.squares = data_of<const T>(in.pool.squares[l]);
    layer.grams = data_of<const T>(in.pool.grams[l]);
    if (in.embedded()) {
      layer.embedded = data_of<const T>(in.pool.embedded[l]);
      layer.embedded_squares = data_of<const T>(in.pool.embedded_squares[l]);
    }
    const Tensor* const of = record.tensors.data() + 1 + of_layer * l;
    const std::int64_t first = row * in.sizes.S * layer.P;
    layer.a = data_of<T>(of[0]) + first;
    layer.b = data_of<T>(of[1]) + first;
    if (of_layer < 4 || !options.matches()) continue;
    layer.assignment = data_of<std::int32_t>(of[2]) + first;
    layer.cosines = data_of<T>(of[3]) + first;
  }
  return to;
}

inline OptionalTensor workspace_of(const Inputs& in, std::size_t bytes) {
  if (bytes == 0) return std::nullopt;
  return torch::stable::new_empty(in.pool.positions[0], {static_cast<std::int64_t>(bytes)},
                                  ScalarType::Byte);
}

}  // namespace lwfm::episodes_on_cuda
