// Episodes backward, the part of the support images, once the tiles of all queries are done: what
// products and squares of all queries contribute to the positions of a class. See
// episode_backward.h.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matching/episode_backward.h"

namespace lwfm {

// What the products of the chunk's queries contribute to the support images of class c, into
// class_rows.
template <class T, class Products>
void multiply_products_of_class(TileGradientWorkspace<T>& workspace,
                                const EpisodeGradientLayer<T>& of, std::int64_t c,
                                const Products& products) {
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = of.layer.pool.P, C = of.layer.pool.C;
  const std::int64_t row = images.classes.begin[c] * P, rows = images.classes.shots(c) * P;
  workspace.class_rows.resize(static_cast<std::size_t>(rows * C));
  products.matrices(of.to.products.data() + row * of.columns(), of.columns(), rows, of.columns(),
                    of.query_positions(), C, workspace.class_rows.data());
}

// The gradients of the squared norms of the class's weighted means, as factors of a: [K P, Q].
template <class T>
void weigh_square_gradients(TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
                            std::int64_t c, const T* a) {
  const EpisodeImages& images = of.layer.images;
  const std::int64_t rows = images.classes.shots(c) * of.layer.pool.P, Q = images.Q;
  workspace.terms.resize(TileQueries<T>::size_of(images.classes.way * 3));
  workspace.weights.resize(static_cast<std::size_t>(rows * Q));
  for (std::int64_t q = 0; q < Q; ++q) {
    differentiate_base(of.outer, images, of.e, q, workspace.terms.data());
    const T factor =
        workspace.terms[(c * 3 + 1) * TileQueries<T>::kStride] * T{2} / static_cast<T>(rows * rows);
    for (std::int64_t r = 0; r < rows; ++r) workspace.weights[r * Q + q] = factor * a[r * Q + q];
  }
}

// What the products of the positions of class c with one another, and their squares, contribute,
// added to class_rows.
template <class T, class Products>
void add_own_of_class(TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
                      std::int64_t c, const Products& products) {
  const EpisodeImages& images = of.layer.images;
  const std::int64_t P = of.layer.pool.P, C = of.layer.pool.C, Q = images.Q;
  const std::int64_t row = images.classes.begin[c] * P, rows = images.classes.shots(c) * P;
  const T* const a = of.record.a + (of.e * images.S * P + row) * Q;
  const T* const positions = of.support.positions.data() + row * C;
  T* const to = workspace.class_rows.data();
  weigh_square_gradients(workspace, of, c, a);
  std::vector<T> squares(static_cast<std::size_t>(rows), T{0});
  const std::int64_t tiles = static_cast<std::int64_t>(of.to.row_squares.size()) / (images.S * P);
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    for (std::int64_t r = 0; r < rows; ++r) {
      squares[r] += 2 * of.to.row_squares[tile * images.S * P + row + r];
    }
  }
  if (!images.has_gram(c, P)) {
    workspace.means.resize(static_cast<std::size_t>(Q * C));
    workspace.query_rows.resize(static_cast<std::size_t>(rows * C));
    products.transposed(a, Q, rows, Q, positions, C, workspace.means.data());
    products.matrices(workspace.weights.data(), Q, rows, Q, workspace.means.data(), C,
                      workspace.query_rows.data());
    vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      for (std::int64_t k = 0; k < rows * C; ++k) to[k] += workspace.query_rows[k];
      for (std::int64_t r = 0; r < rows; ++r) {
        add_multiple<decltype(bytes)::value>(positions + r * C, squares[r], C, to + r * C);
      }
    });
    return;
  }
  workspace.gram.resize(static_cast<std::size_t>(rows * rows));
  products.rows(workspace.weights.data(), rows, a, rows, Q, workspace.gram.data());
  for (std::int64_t r = 0; r < rows; ++r) workspace.gram[r * rows + r] += squares[r];
  vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
    add_weighted_rows<decltype(bytes)::value, T>(
        [&](std::int64_t r) LWFM_INLINE_LAMBDA { return positions + r * C; }, rows,
        {workspace.gram.data(), rows, rows}, C, {to, rows, C});
  });
}

// Writes class_rows to the images of class c, or adds them to what earlier chunks left there.
template <class T>
void write_class(const TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
                 std::int64_t c) {
  const ClassImages& classes = of.layer.images.classes;
  const std::int64_t size = of.layer.pool.P * of.layer.pool.C;
  const T* from = workspace.class_rows.data();
  for (std::int64_t n = classes.begin[c]; n < classes.begin[c + 1]; ++n, from += size) {
    T* const to = of.to.positions.support[static_cast<std::size_t>(n)];
    for (std::int64_t k = 0; k < size; ++k) to[k] = of.first_query > 0 ? to[k] + from[k] : from[k];
  }
}

// The support images of class c, once all tiles of a chunk are done.
template <class T, class Products>
void differentiate_class(TileGradientWorkspace<T>& workspace, const EpisodeGradientLayer<T>& of,
                         std::int64_t c, const Products& products) {
  const EpisodeImages& images = of.layer.images;
  const bool is_last = of.first_query + of.chunk == images.Q;
  multiply_products_of_class(workspace, of, c, products);
  if (is_last) add_own_of_class(workspace, of, c, products);
  write_class(workspace, of, c);
}

}  // namespace lwfm
