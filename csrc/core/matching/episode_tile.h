// Memory of the pieces of an episode: its support images of one layer, sorted by class, and the
// queries of one tile, one a lane.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/matching/class_comparison.h"
#include "core/matching/episode.h"
#include "core/matching/tile_matching.h"

namespace lwfm {

// Memory that is not set to zero.
template <class T>
class Uninitialized {
 public:
  void reserve(std::int64_t count) {
    if (count <= count_) return;
    numbers_.reset(new T[static_cast<std::size_t>(count)]);
    count_ = count;
  }
  T* data() const { return numbers_.get(); }

 private:
  std::unique_ptr<T[]> numbers_;
  std::int64_t count_ = 0;
};

// Support images of one layer of one episode.
template <class T>
struct EpisodeSupport {
  Uninitialized<T> positions;           // [S, P, C]
  std::vector<T> scales, norms;         // [S, P]: of correlations, of cosines
  Uninitialized<T> grams;               // [K P, K P] of each class that has them
  std::vector<const T*> embedded_rows;  // [S, P]
  std::vector<T> embedded_norms;        // [S, P]: 1 / |embedded|

  void reserve(const PoolLayer<T>& layer, const EpisodeImages& images) {
    const auto rows = static_cast<std::size_t>(images.S * layer.P);
    positions.reserve(images.S * layer.P * layer.C);
    for (auto* of_rows : {&scales, &norms}) of_rows->resize(rows);
    grams.reserve(images.gram_begin(images.classes.way, layer.P));
    embedded_rows.resize(layer.is_embedded() ? rows : 0);
    embedded_norms.resize(layer.is_embedded() ? rows : 0);
  }

  // Reads class c; products.rows(a, a_rows, b, b_rows, C, to) writes to [a_rows, b_rows] = a b^T.
  template <class Products>
  void read_class(const PoolLayer<T>& layer, const EpisodeImages& images, std::int64_t e,
                  std::int64_t c, const Products& products) {
    const std::int64_t P = layer.P, C = layer.C;
    const std::int64_t begin = images.classes.begin[c], end = images.classes.begin[c + 1];
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t image = images.support_image(e, n);
      std::copy_n(layer.position(image, 0), P * C, positions.data() + n * P * C);
      for (std::int64_t p = 0, row = n * P; p < P; ++p, ++row) {
        const T square = layer.squares[image * P + p];
        scales[row] = correlation_scale(square);
        norms[row] = inverse_norm(square);
        if (!layer.is_embedded()) continue;
        embedded_rows[row] = layer.embedded_position(image, p);
        embedded_norms[row] = inverse_norm(layer.embedded_squares[image * P + p]);
      }
    }
    if (!images.has_gram(c, P)) return;
    const T* const of_class = positions.data() + begin * P * C;
    const std::int64_t rows = (end - begin) * P;
    products.rows(of_class, rows, of_class, rows, C, grams.data() + images.gram_begin(c, P));
  }
};

// Queries of one tile of one layer. Numbers of queries are adjacent: tile.count of them in
// positions, kStride elsewhere.
template <class T>
struct TileQueries {
  static constexpr std::int64_t kStride = kGroup<T>;

  QueryTile tile;
  T* positions;                   // [P, count, C]
  std::vector<T> scales, norms;   // [P, kStride]
  std::vector<T> grams;           // [P, P, kStride]
  std::vector<T> embedded_norms;  // [count, P]: 1 / |embedded|

  // Copies the positions to memory of the caller.
  void read(const PoolLayer<T>& layer, const EpisodeImages& images, const QueryTile& which,
            T* copied_positions) {
    tile = which;
    positions = copied_positions;
    const std::int64_t P = layer.P, C = layer.C;
    embedded_norms.resize(layer.is_embedded() ? static_cast<std::size_t>(P * tile.count) : 0);
    for (auto* of_rows : {&scales, &norms}) of_rows->assign(size_of(P), T{0});
    grams.assign(size_of(P * P), T{0});
    for (std::int64_t lane = 0; lane < tile.count; ++lane) {
      const std::int64_t image = images.query_image(tile.e, tile.first + lane);
      for (std::int64_t p = 0; p < P; ++p) {
        std::copy_n(layer.position(image, p), C, positions + (p * tile.count + lane) * C);
        const T square = layer.squares[image * P + p];
        scales[p * kStride + lane] = correlation_scale(square);
        norms[p * kStride + lane] = inverse_norm(square);
        if (!layer.is_embedded()) continue;
        embedded_norms[lane * P + p] = inverse_norm(layer.embedded_squares[image * P + p]);
      }
      const T* gram = layer.grams + image * P * P;
      for (std::int64_t k = 0; k < P * P; ++k) grams[k * kStride + lane] = gram[k];
    }
  }

  static std::size_t size_of(std::int64_t rows) { return static_cast<std::size_t>(rows * kStride); }
};

// Products of positions of consecutive classes with those of a tile: [rows, P, count], and room for
// a vector that begins at the last number.
template <class T>
struct TileProducts {
  std::vector<T> values;

  T* resize(std::int64_t rows, std::int64_t columns) {
    values.resize(static_cast<std::size_t>(rows * columns + kGroup<T>));
    return values.data();
  }
};

// The classes whose products with a tile are computed together: enough that the product is fast,
// few enough that it stays in the second-level cache. A class without a gram is processed alone.
struct ClassRange {
  std::int64_t begin, end;
};
inline ClassRange classes_from(const EpisodeImages& images, std::int64_t begin, std::int64_t P) {
  constexpr std::int64_t kRows = 256;
  std::int64_t end = begin, rows = 0;
  const auto joins = [&](std::int64_t c) {
    return c == begin || (images.has_gram(begin, P) && images.has_gram(c, P) &&
                          rows + images.classes.shots(c) * P <= kRows);
  };
  while (end < images.classes.way && joins(end)) rows += images.classes.shots(end++) * P;
  return {begin, end};
}

template <class T>
ClassTile<T> class_tile(const PoolLayer<T>& layer, const EpisodeImages& images, std::int64_t c,
                        const EpisodeSupport<T>& support, const TileQueries<T>& queries,
                        const T* raw, double temperature) {
  const std::int64_t P = layer.P, row = images.classes.begin[c] * P;
  return {images.classes.shots(c),
          P,
          queries.tile.count,
          TileQueries<T>::kStride,
          raw,
          support.scales.data() + row,
          queries.scales.data(),
          images.has_gram(c, P) ? support.grams.data() + images.gram_begin(c, P) : nullptr,
          nullptr,
          queries.grams.data(),
          static_cast<T>(temperature)};
}

// Images first, ..., first + count - 1 of the sorted support images, with their products.
template <class T>
MatchTile<T> match_tile(const PoolLayer<T>& layer, std::int64_t first, std::int64_t count,
                        const EpisodeSupport<T>& support, const TileQueries<T>& queries,
                        const T* raw) {
  return {count * layer.P,         layer.P, queries.tile.count,
          TileQueries<T>::kStride, raw,     support.norms.data() + first * layer.P,
          queries.norms.data()};
}

}  // namespace lwfm
