// What lwfm::episodes and its backward check and allocate, on any device; the contract is in
// episodes.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/matching/episode.h"
#include "tensor_views.h"

namespace lwfm {

using TensorList = std::vector<Tensor>;
using Sizes = std::vector<std::int64_t>;

// The encoded images, as encode_maps returns them; contiguous.
struct EncodedPool {
  TensorList positions, squares, grams, embedded, embedded_squares;

  EncodedPool(const TensorList& all_positions, const TensorList& all_squares,
              const TensorList& all_grams, const TensorList& all_embedded,
              const TensorList& all_embedded_squares) {
    const std::size_t L = all_positions.size();
    require(L > 0, "episodes need at least one layer");
    require(all_squares.size() == L && all_grams.size() == L &&
                all_embedded.size() == all_embedded_squares.size() &&
                (all_embedded.empty() || all_embedded.size() == L),
            "squares and grams, and the embedded two if any, must have an entry for each layer");
    const ScalarType dtype = all_positions[0].scalar_type();
    require(dtype == ScalarType::Float || dtype == ScalarType::Double,
            "positions must be float32 or float64");
    const std::int64_t n = all_positions[0].dim() == 3 ? all_positions[0].size(0) : 0;
    const auto add = [&](TensorList& to, const Tensor& tensor,
                         std::initializer_list<std::int64_t> shape, const char* name) {
      require(tensor.scalar_type() == dtype && has_shape(tensor, shape), name,
              " must have the dtype, the images and the positions of the first layer");
      to.push_back(contiguous_of(tensor));
    };
    for (std::size_t l = 0; l < L; ++l) {
      require(all_positions[l].dim() == 3, "positions must be [n, P, C]");
      const std::int64_t P = all_positions[l].size(1);
      require(P > 0, "images need at least one position");
      add(positions, all_positions[l], {n, P, all_positions[l].size(2)}, "positions");
      add(squares, all_squares[l], {n, P}, "squares [n, P]");
      add(grams, all_grams[l], {n, P, P}, "grams [n, P, P]");
      if (all_embedded.empty()) continue;
      require(all_embedded[l].dim() == 3, "embedded must be [n, P, D]");
      add(embedded, all_embedded[l], {n, P, all_embedded[l].size(2)}, "embedded");
      add(embedded_squares, all_embedded_squares[l], {n, P}, "embedded squares [n, P]");
    }
  }

  std::size_t layers() const { return positions.size(); }
  std::int64_t images() const { return positions[0].size(0); }
  std::int64_t P(std::size_t l) const { return positions[l].size(1); }
  std::int64_t C(std::size_t l) const { return positions[l].size(2); }
  Sizes positions_of_layers() const {
    Sizes sizes;
    for (const Tensor& x : positions) sizes.push_back(x.size(1));
    return sizes;
  }
  std::int64_t channels() const {
    std::int64_t sum = 0;
    for (const Tensor& x : positions) sum += x.size(2);
    return sum;
  }
};

// E, S, Q, way, checked.
struct EpisodeSizes {
  std::int64_t E, S, Q, way;
  bool listed;  // by lists of images, so that results have the dimension E

  // pool_images: n.
  EpisodeSizes(std::int64_t pool_images, const std::optional<Tensor>& support,
               const std::optional<Tensor>& query, const Tensor& order, const Tensor& begin)
      : E(1), S(order.numel()), Q(0), way(begin.numel() - 1), listed(support.has_value()) {
    require(support.has_value() == query.has_value(),
            "lists of support images and queries belong together");
    for (const Tensor& list : {order, begin}) {
      require(list.dim() == 1 && list.scalar_type() == ScalarType::Long && list.is_contiguous(),
              "order [S] and begin [way + 1] must be contiguous int64");
    }
    require(S > 0 && way > 0, "an episode needs at least one class");
    if (listed) {
      for (const Tensor& list : {*support, *query}) {
        require(list.dim() == 2 && list.scalar_type() == ScalarType::Long && list.is_contiguous(),
                "lists of images must be contiguous int64 [E, S] and [E, Q]");
      }
      E = support->size(0);
      Q = query->size(1);
      require(query->size(0) == E && support->size(1) == S,
              "lists of images must have E rows, and as many support images as there are labels");
    } else {
      Q = pool_images - S;
      require(Q >= 0, "fewer images than support images");
    }
  }

  // [E, sizes...], or without E where there is one episode that is no list.
  Sizes shape(const Sizes& sizes) const {
    Sizes all = listed ? Sizes{E} : Sizes{};
    all.insert(all.end(), sizes.begin(), sizes.end());
    return all;
  }
};

// positions: P of each layer.
inline EpisodeOptions episode_options(const Sizes& positions, double temperature,
                                      std::int64_t top_k, bool mean_over_layers, bool merge_shots,
                                      bool features) {
  require(temperature > 0, "the temperature must be positive");
  for (const std::int64_t P : positions) {
    if (top_k >= -1 && top_k <= P) continue;
    require(false, "top_k must be 1 to ", std::to_string(P), ", -1 for all or 0 for no matching");
  }
  return {temperature, top_k, mean_over_layers, merge_shots, features};
}

// What the operator returns: base and matching [E, Q, way], features [E, Q, C] or empty, and for
// the backward pass the sums over layers of the base term, and a, b, assignment and cosines of each
// layer; empty if there is none.
struct EpisodeOutputs {
  static constexpr std::size_t kShared = 4, kOfLayer = 4;
  Tensor base, matching, features, terms;
  TensorList a, b, assignment, cosines;

  EpisodeOutputs(const EncodedPool& pool, const EpisodeSizes& sizes, const EpisodeOptions& options,
                 bool record) {
    const Tensor& like = pool.positions[0];
    const auto empty = [&](const Sizes& shape) { return empty_tensor(like, shape); };
    base = empty(sizes.shape({sizes.Q, sizes.way}));
    matching = empty(sizes.shape({sizes.Q, sizes.way}));
    features = empty(options.features ? sizes.shape({sizes.Q, pool.channels()}) : Sizes{0});
    terms = empty(record ? Sizes{sizes.E, sizes.way, 3, sizes.Q} : Sizes{0});
    for (std::size_t l = 0; record && l < pool.layers(); ++l) {
      const Sizes weights{sizes.E, sizes.S, pool.P(l), sizes.Q};
      const Sizes matches =
          options.matches() ? Sizes{sizes.E, sizes.Q, sizes.S, pool.P(l)} : Sizes{0};
      a.push_back(empty(weights));
      b.push_back(empty(weights));
      assignment.push_back(empty_tensor(like, matches, ScalarType::Int));
      cosines.push_back(empty(matches));
    }
  }

  TensorList list() const {
    TensorList all{base, matching, features, terms};
    for (std::size_t l = 0; l < a.size(); ++l) {
      for (const Tensor& of_layer : {a[l], b[l], assignment[l], cosines[l]})
        all.push_back(of_layer);
    }
    return all;
  }
};

}  // namespace lwfm
