// Gradients of whole episodes, as core/matching/episode_backward.h computes them, in two kernels.
// The first works on the queries and classes as the forward pass does, and writes the gradients of
// products; a matrix library multiplies these with the positions of either side. The second adds to
// each position what squared norms, products of an image's or a class's own positions, and features
// contribute. Every sum is taken in an order that depends on shapes alone.
#pragma once

#include "core/matching/norms.h"
#include "embedding_weights.cuh"
#include "episode_class.cuh"
#include "episode_plan.h"
#include "episodes.cuh"
#include "matched_similarity.cuh"

namespace lwfm {

// Shared memory of one support image, and of what its block shares.
template <class T>
LWFM_HOST_DEVICE std::size_t image_gradient_bytes(std::int64_t P) {
  const std::int64_t numbers =
      weights_gradient_scratch(static_cast<int>(P), static_cast<int>(P), true) + 2 * P;
  return (static_cast<std::size_t>(numbers) * sizeof(T) + 15) / 16 * 16;
}

template <class T>
LWFM_HOST_DEVICE std::size_t class_gradient_bytes(std::int64_t P) {
  return (2 * static_cast<std::size_t>(P) * sizeof(T) + 15) / 16 * 16;
}

// The gradients of inner, square_s and square_q.
template <class T>
struct TermGradients {
  T inner, square_s, square_q;

  __device__ TermGradients(const EpisodeGradientArguments<T>& arguments, const EpisodeClass& of) {
    const EpisodeArguments<T>& all = arguments.of;
    const T* const sums = all.sums + of.at * all.sums_of_query() + 3 * of.c;
    const T grad = arguments.base[of.at * all.lists.way + of.c];
    const T by_s = inverse_norm(sums[1]), by_q = inverse_norm(sums[2]);
    inner = grad * by_s * by_q;
    square_s = grad * sums[0] * by_q * inverse_norm_slope(sums[1]);
    square_q = grad * sums[0] * by_s * inverse_norm_slope(sums[2]);
  }

  __device__ void write(T* to) const {
    to[0] = inner;
    to[1] = square_s;
    to[2] = square_q;
  }
};

// What a block knows of one layer: m and the gradient of m, in shared memory, and factors of the
// quadratic forms.
template <class T>
struct LayerOfClass {
  const EpisodeArguments<T>& arguments;
  const EpisodeLayerArguments<T>& layer;
  const EpisodeClass& of;
  T *mean, *mean_gradient;           // [P]
  T by_inner, by_support, by_query;  // a^T R m, a^T G a, m^T H m

  __device__ LayerOfClass(const EpisodeArguments<T>& all, const EpisodeLayerArguments<T>& of_layer,
                          const EpisodeClass& of_class, const TermGradients<T>& terms, T* memory)
      : arguments(all),
        layer(of_layer),
        of(of_class),
        mean(memory),
        mean_gradient(memory + layer.P) {
    const T share = T{1} / static_cast<T>(layer.P), of_image = share / static_cast<T>(of.shots);
    by_inner = terms.inner * share * of_image;
    by_support = terms.square_s * of_image * of_image;
    by_query = terms.square_q * share * share;
  }

  __device__ const T* a() const { return layer.a + of.row(arguments, layer.P, 0); }
};

// x . gradient of the features of position j of the query, a lane's share.
template <class T>
__device__ T feature_product(const LayerOfClass<T>& in, const T* features, int j) {
  const EpisodeArguments<T>& arguments = in.arguments;
  const T* const x = in.layer.positions +
                     (arguments.lists.query_image(in.of.e, in.of.q) * in.layer.P + j) * in.layer.C;
  T sum{0};
  for (std::int64_t c = lane_index(); c < in.layer.C; c += kWarp) sum += x[c] * features[c];
  return sum / (static_cast<T>(arguments.lists.way) * static_cast<T>(in.layer.P));
}

// The gradient of m, a warp for each position; `features` is that of the query's features of this
// layer, or null. Needs a barrier before anyone reads.
template <class T>
__device__ void differentiate_mean(const LayerOfClass<T>& in, const T* features) {
  const int P = in.layer.P, rows = in.of.shots * P;
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  const T* const a = in.a();
  const T* const gram = gram_of_query(in.arguments, in.layer, in.of);
  for (int j = warp; j < P; j += warps) {
    T along{0}, own{0};
    for (int r = lane_index(); r < rows; r += kWarp) {
      along += a[r] * EpisodeBlock<T>(in.arguments, in.layer, in.of, r / P).at(r % P, j);
    }
    for (int i = lane_index(); i < P; i += kWarp) own += gram[j * P + i] * in.mean[i];
    T sum = in.by_inner * along + 2 * in.by_query * own;
    if (features != nullptr) sum += feature_product(in, features, j);
    sum = warp_sum(sum);
    if (lane_index() == 0) in.mean_gradient[j] = sum;
  }
}

// The gradients of the weights of image k: a [P], then b [P].
template <class T>
__device__ void write_weight_gradients(const LayerOfClass<T>& in, int k,
                                       const PairView<T, true>& pair, T* to) {
  const int P = in.layer.P;
  const T* const a = in.a();
  for (int i = lane_index(); i < P; i += kWarp) {
    T along{0}, own{0};
    for (int j = 0; j < P; ++j) along += pair.raw_at(i, j) * in.mean[j];
    for (int other = 0; other < in.of.shots; ++other) {
      const ClassBlock<T> block(in.arguments, in.layer, in.of, other, k);
      for (int j = 0; j < P; ++j) own += a[other * P + j] * block.at(j, i);
    }
    to[i] = in.by_inner * along + 2 * in.by_support * own;
    to[P + i] = in.mean_gradient[i] / static_cast<T>(in.of.shots);
  }
}

// The matches of a support image that have a gradient.
template <class T>
struct SharedMatches {
  T* shares;     // [P]: what each position gets of the gradient
  int* columns;  // [P]: which position of the query it is matched with
};

// The gradient of the matched similarity of image k, or of its class, in one layer.
template <class T>
__device__ T similarity_gradient(const EpisodeGradientArguments<T>& arguments,
                                 const EpisodeClass& of, int l, int k) {
  const EpisodeArguments<T>& all = arguments.of;
  const bool merged = all.choices.merge_shots;
  const T* const similarities = all.sums + of.at * all.sums_of_query() + 3 * all.lists.way;
  const T grad =
      arguments.matching[of.at * all.lists.way + of.c] / static_cast<T>(merged ? 1 : of.shots);
  int from;
  over_layers(all, similarities, merged ? of.c : of.begin + k, from);
  if (from < 0) return grad / static_cast<T>(all.layers);
  return from == l ? grad : T{0};
}

template <class T>
__device__ void share_similarity_gradient(const EpisodeGradientArguments<T>& arguments,
                                          const EpisodeClass& of, int l, int k,
                                          const SharedMatches<T>& to) {
  const EpisodeArguments<T>& all = arguments.of;
  const EpisodeLayerArguments<T>& layer = all.of[l];
  const bool matches = all.choices.matches(), merged = all.choices.merge_shots;
  const int P = layer.P, top_k = all.choices.matched(P);
  const T grad = matches ? similarity_gradient(arguments, of, l, k) : T{0};
  const std::int64_t first = of.row(all, P, merged ? 0 : k);
  for (int i = lane_index(); i < P; i += kWarp) {
    to.shares[i] = T{0};
    to.columns[i] = -1;
    if (grad == T{0}) continue;
    const int row = merged ? k * P + i : i, j = layer.assignment[first + row];
    if (j < 0) continue;
    const int rows = merged ? of.shots * P : P;
    if (rank_of(layer.cosines + first, layer.assignment + first, rows, row) >= top_k) continue;
    to.shares[i] = grad / static_cast<T>(top_k);
    to.columns[i] = j;
  }
}

// A norm below the smallest counts as that one, whatever it is, and so has no gradient.
template <class T>
__device__ T inverse_square(T square) {
  const T inverse = inverse_norm(square);
  return inverse < static_cast<T>(1.0 / kCosineEps) ? inverse * inverse : T{0};
}

// Squared norms of what the positions of an image pair are compared by.
template <class T>
struct ComparedSquares {
  const T *support, *query;  // [P]

  __device__ ComparedSquares(const EpisodeArguments<T>& arguments,
                             const EpisodeLayerArguments<T>& layer, const EpisodeClass& of, int k) {
    const T* const squares = layer.embedded == nullptr ? layer.squares : layer.embedded_squares;
    support = squares + arguments.lists.support_image(of.e, of.begin + k) * layer.P;
    query = squares + arguments.lists.query_image(of.e, of.q) * layer.P;
  }
};

// What matches contribute to the gradient of products, at position j of the query and i.
template <class T>
__device__ T matched_gradient(const SharedMatches<T>& matches, const ComparedSquares<T>& squares,
                              int i, int j) {
  if (matches.columns[i] != j) return T{0};
  return matches.shares[i] * inverse_norm(squares.support[i]) * inverse_norm(squares.query[j]);
}

// What they contribute to how much of itself a position is taken off.
template <class T>
__device__ T along_support(const SharedMatches<T>& matches, const ComparedSquares<T>& squares,
                           const T* cosines, int i) {
  if (matches.columns[i] < 0) return T{0};
  return matches.shares[i] * cosines[i] * inverse_square(squares.support[i]);
}

template <class T>
__device__ T along_query(const SharedMatches<T>& matches, const ComparedSquares<T>& squares,
                         const T* cosines, int P, int j) {
  T sum{0};
  for (int i = 0; i < P; ++i) {
    if (matches.columns[i] == j) sum += matches.shares[i] * cosines[i];
  }
  return sum == T{0} ? sum : sum * inverse_square(squares.query[j]);
}

// The gradient of a squared norm from that of its correlation_scale.
template <class T>
__device__ T square_gradient(T scale, T gradient) {
  return static_cast<T>(-0.5) * scale * scale * scale * gradient;
}

// Writes the gradients of the products and squares of image k of the class with the query.
template <class T>
__device__ void differentiate_image(const EpisodeGradientArguments<T>& arguments,
                                    const LayerOfClass<T>& in, int l, int k, T* memory) {
  using Group = PairGroup<true>;
  const EpisodeArguments<T>& all = arguments.of;
  const EpisodeLayerArguments<T>& layer = in.layer;
  const EpisodeLayerGradients<T>& to = arguments.to[l];
  const int P = layer.P;
  const WeightsGradientScratch<T> scratch(memory, P, P);
  T* const rest = memory + weights_gradient_scratch(P, P, true);
  const SharedMatches<T> matches{rest, reinterpret_cast<int*>(rest + P)};
  const auto pair = stage_image(
      all, layer, in.of, k, [](T square) { return correlation_scale(square); }, scratch.pair,
      scratch.pair + 2 * P);
  share_similarity_gradient(arguments, in.of, l, k, matches);
  __syncwarp();
  if (all.choices.weighs) {
    write_weight_gradients(in, k, pair, scratch.weights);
    const T temperature = static_cast<T>(all.choices.temperature);
    find_lines<Group>(pair, temperature, scratch.lines);
    __syncwarp();
    find_line_gradients<Group>(pair, temperature, scratch);
    __syncwarp();
  }
  const ComparedSquares<T> squares(all, layer, in.of, k);
  const bool embedded = to.embedded_products != nullptr;
  const std::int64_t own = in.of.row(all, P, k);
  const T* const a = layer.a + own;
  const T* const cosines = layer.cosines + own;
  const std::int64_t step = all.lists.S * P,
                     first = in.of.at * P * step + all.lists.support_number(in.of.begin + k) * P;
  for (int line = lane_index(); line < 2 * P; line += kWarp) {
    const int j = line - P;
    const auto write = [&](int i, T gradient) {
      gradient += in.by_inner * a[i] * in.mean[j];
      const T matched = matched_gradient(matches, squares, i, j);
      to.products[first + j * step + i] = embedded ? gradient : gradient + matched;
      if (embedded) to.embedded_products[first + j * step + i] = matched;
    };
    T square{0};
    if (all.choices.weighs) {
      square = square_gradient(scratch.pair[line], gather_line(pair, line, scratch, write));
    } else if (j >= 0) {
      for (int i = 0; i < P; ++i) write(i, T{0});
    }
    T along{0};
    if (all.choices.matches()) {
      along = line < P ? along_support(matches, squares, cosines, line)
                       : along_query(matches, squares, cosines, P, j);
    }
    if (!embedded) square -= static_cast<T>(0.5) * along;
    (line < P ? to.row_squares[own + line] : to.column_squares[own + j]) = square;
    if (embedded) (line < P ? to.row_along[own + line] : to.column_along[own + j]) = along;
  }
  __syncwarp();  // before the next image takes the memory
}

template <class T, bool kShared>
__global__ void __launch_bounds__(kPairThreads, 1)
    differentiate_episodes(EpisodeGradientArguments<T> arguments, EpisodePlan plan) {
  LWFM_DYNAMIC_SHARED(unsigned char, shared);
  unsigned char* memory = shared;
  if constexpr (!kShared) {
    memory =
        static_cast<unsigned char*>(arguments.of.workspace) + blockIdx.x * plan.workspace_bytes;
  }
  const EpisodeArguments<T>& all = arguments.of;
  const EpisodeLists& lists = all.lists;
  const int most = most_positions(all), warp = static_cast<int>(threadIdx.x) / kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  auto* const own = reinterpret_cast<T*>(memory + class_gradient_bytes<T>(most) +
                                         warp * image_gradient_bytes<T>(most));
  for (std::int64_t block = blockIdx.x; block < lists.E * lists.Q * lists.way; block += gridDim.x) {
    const EpisodeClass of(all, block, plan.most_shots);
    const TermGradients<T> terms(arguments, of);
    if (threadIdx.x == 0) terms.write(arguments.terms + 3 * block);
    const T* features =
        arguments.features == nullptr ? nullptr : arguments.features + of.at * all.channels();
    for (int l = 0; l < all.layers; ++l) {
      const LayerOfClass<T> in(all, all.of[l], of, terms, reinterpret_cast<T*>(memory));
      average_query_weights(all, all.of[l], of, in.mean);
      __syncthreads();
      differentiate_mean(in, features);
      if (features != nullptr) features += all.of[l].C;
      __syncthreads();
      for (int k = warp; k < of.shots; k += warps) differentiate_image(arguments, in, l, k, own);
      __syncthreads();  // before the next layer takes the memory
    }
  }
}

// The class of the support image at place n of those sorted by class.
__device__ inline std::int64_t class_of(const EpisodeLists& lists, std::int64_t n) {
  std::int64_t c = 0;
  while (c + 1 < lists.way && lists.begin[c + 1] <= n) ++c;
  return c;
}

// Twice the gradient of the product of a support image's position with position `row` of its class.
template <class T>
__device__ T class_product_gradient(const EpisodeGradientArguments<T>& arguments,
                                    const EpisodeLayerArguments<T>& layer, std::int64_t e,
                                    std::int64_t c, int own_row, int row, int rows,
                                    std::int64_t first, const T* row_squares) {
  const EpisodeLists& lists = arguments.of.lists;
  const T share = T{2} / (static_cast<T>(rows) * static_cast<T>(rows));
  const std::int64_t step = lists.S * layer.P;
  T sum{0};
  for (std::int64_t q = 0; q < lists.Q; ++q) {
    const std::int64_t at = e * lists.Q + q, begin = at * step + first;
    const T weight = arguments.terms[(at * lists.way + c) * 3 + 1] * share;
    sum += weight * layer.a[begin + own_row] * layer.a[begin + row];
    if (row == own_row) sum += 2 * row_squares[begin + row];
  }
  return sum;
}

// Twice the gradient of the product of positions j and i of a query.
template <class T>
__device__ T query_product_gradient(const EpisodeGradientArguments<T>& arguments,
                                    const EpisodeLayerArguments<T>& layer, std::int64_t at, int j,
                                    int i, const T* column_squares, int most_shots) {
  const EpisodeArguments<T>& all = arguments.of;
  const EpisodeLists& lists = all.lists;
  const int P = layer.P;
  const T share = T{2} / (static_cast<T>(P) * static_cast<T>(P));
  T sum{0};
  for (std::int64_t c = 0; c < lists.way; ++c) {
    const EpisodeClass of(all, at * lists.way + c, most_shots);
    const std::int64_t begin = of.row(all, P, 0);
    T m_j{0}, m_i{0};
    for (int k = 0; k < of.shots; ++k) {
      m_j += layer.b[begin + k * P + j];
      m_i += layer.b[begin + k * P + i];
      if (i == j) sum += 2 * column_squares[begin + k * P + j];
    }
    const T shots = static_cast<T>(of.shots);
    sum += arguments.terms[(at * lists.way + c) * 3 + 2] * share * (m_j / shots) * (m_i / shots);
  }
  return sum;
}

// One position of a support image, or of a query.
struct GradientRow {
  int l;
  bool of_support;
  std::int64_t e, number;  // of the image: sorted support images, queries
  int p;

  // Row `index` of all: layer after layer; support images of all episodes, then queries.
  template <class T>
  __device__ GradientRow(const EpisodeArguments<T>& arguments, std::int64_t index) {
    const EpisodeLists& lists = arguments.lists;
    l = 0;
    for (; l + 1 < arguments.layers; ++l) {
      const std::int64_t rows = lists.E * (lists.S + lists.Q) * arguments.of[l].P;
      if (index < rows) break;
      index -= rows;
    }
    p = static_cast<int>(index % arguments.of[l].P);
    index /= arguments.of[l].P;
    of_support = index < lists.E * lists.S;
    if (!of_support) index -= lists.E * lists.S;
    const std::int64_t images = of_support ? lists.S : lists.Q;
    e = index / images;
    number = index % images;
  }
};

template <class T>
__device__ void finish_support_row(const EpisodeGradientArguments<T>& arguments,
                                   const GradientRow& at, const RowList<T>& list, T* parts,
                                   int most_shots) {
  const EpisodeArguments<T>& all = arguments.of;
  const EpisodeLists& lists = all.lists;
  const EpisodeLayerArguments<T>& layer = all.of[at.l];
  const EpisodeLayerGradients<T>& to = arguments.to[at.l];
  const std::int64_t P = layer.P,
                     row = (at.e * lists.S + lists.support_number(at.number)) * P + at.p;
  const std::int64_t c = class_of(lists, at.number);
  const EpisodeClass of(all, at.e * lists.Q * lists.way + c, most_shots);
  const int own = static_cast<int>((at.number - of.begin) * P) + at.p;
  sum_rows(
      layer.positions, layer.C, of.shots * P,
      [&](std::int64_t r) -> WeightedRow<T> {
        const std::int64_t image = lists.support_image(at.e, of.begin + r / P);
        return {(image * P + r % P) * layer.C,
                class_product_gradient(arguments, layer, at.e, c, own, static_cast<int>(r),
                                       of.shots * layer.P, of.begin * P, to.row_squares)};
      },
      list, [&](std::int64_t channel, T sum) { to.support[row * layer.C + channel] += sum; });
  if (to.embedded_products == nullptr) return;
  T along{0};
  for (std::int64_t q = threadIdx.x; q < lists.Q; q += kSumThreads) {
    along += to.row_along[((at.e * lists.Q + q) * lists.S + at.number) * P + at.p];
  }
  along = block_sum(along, parts);
  const T* const x = layer.embedded + (lists.support_image(at.e, at.number) * P + at.p) * layer.D;
  T* const embedded = to.support_embedded + row * layer.D;
  for (std::int64_t d = threadIdx.x; d < layer.D; d += kSumThreads) embedded[d] -= along * x[d];
}

template <class T>
__device__ void finish_query_row(const EpisodeGradientArguments<T>& arguments,
                                 const GradientRow& at, const RowList<T>& list, T* parts,
                                 int most_shots) {
  const EpisodeArguments<T>& all = arguments.of;
  const EpisodeLists& lists = all.lists;
  const EpisodeLayerArguments<T>& layer = all.of[at.l];
  const EpisodeLayerGradients<T>& to = arguments.to[at.l];
  const std::int64_t P = layer.P, query = at.e * lists.Q + at.number, row = query * P + at.p;
  const std::int64_t image = lists.query_image(at.e, at.number);
  const T* features = nullptr;
  T weight{0};
  if (arguments.features != nullptr) {
    features = arguments.features + query * all.channels();
    for (int l = 0; l < at.l; ++l) features += all.of[l].C;
    weight = query_weight(all, layer, query, at.p, most_shots);
  }
  sum_rows(
      layer.positions, layer.C, P,
      [&](std::int64_t i) -> WeightedRow<T> {
        return {(image * P + i) * layer.C,
                query_product_gradient(arguments, layer, query, at.p, static_cast<int>(i),
                                       to.column_squares, most_shots)};
      },
      list,
      [&](std::int64_t channel, T sum) {
        if (features != nullptr) sum += weight * features[channel];
        to.query[row * layer.C + channel] += sum;
      });
  if (to.embedded_products == nullptr) return;
  T along{0};
  for (std::int64_t n = threadIdx.x; n < lists.S; n += kSumThreads) {
    along += to.column_along[(query * lists.S + n) * P + at.p];
  }
  along = block_sum(along, parts);
  const T* const x = layer.embedded + (image * P + at.p) * layer.D;
  T* const embedded = to.query_embedded + row * layer.D;
  for (std::int64_t d = threadIdx.x; d < layer.D; d += kSumThreads) embedded[d] -= along * x[d];
}

// A block for each position of each image.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1)
    finish_episode_gradients(EpisodeGradientArguments<T> arguments, std::int64_t rows,
                             int most_shots) {
  LWFM_SHARED(std::int64_t, offsets, kSumThreads);
  LWFM_SHARED(T, weights, kSumThreads);
  LWFM_SHARED(T, parts, kSumThreads / kWarp);
  const RowList<T> list{offsets, weights};
  for (std::int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
    const GradientRow at(arguments.of, n);
    if (at.of_support) {
      finish_support_row(arguments, at, list, parts, most_shots);
    } else {
      finish_query_row(arguments, at, list, parts, most_shots);
    }
  }
}

}  // namespace lwfm
