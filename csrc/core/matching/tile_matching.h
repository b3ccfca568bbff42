// Positions of some support images matched with those of a query of a tile: the assignment of
// least total cost 1 - cosine, the cosines of matched positions, and the gradient that comes back
// through them. See feature_matching.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/matching/feature_matching.h"
#include "core/matching/query_lanes.h"

namespace lwfm {

// Positions of consecutive support images and of the queries of a tile.
template <class T>
struct MatchTile {
  std::int64_t rows, P;              // positions of the support images, of a query
  std::int64_t queries, scale_step;  // as in ClassTile
  const T* raw;                      // [rows, P, queries]
  const T* row_norms;                // [rows]: 1 / |x|
  const T* column_norms;             // [P, scale_step]
};

// What matched positions are compared by, if not by their products: a pointer for each position.
template <class T>
struct EmbeddedRows {
  const T* const* rows = nullptr;
  const T* inverse_norms = nullptr;
};

// costs [rows, P] of every query, one query a lane.
template <class Queries>
LWFM_INLINE void tile_costs(const MatchTile<typename Queries::Number>& tile, std::int64_t lane,
                            QueryArray<Queries>& costs) {
  using T = typename Queries::Number;
  costs.resize(tile.rows * tile.P);
  const T* raw = tile.raw + lane;
  auto* cost = costs.data();
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const T scale = tile.row_norms[r];
    for (std::int64_t j = 0; j < tile.P; ++j, raw += tile.queries) {
      *cost++ = T{1} - lanes_at<Queries>(raw) * scale *
                           lanes_at<Queries>(tile.column_norms + j * tile.scale_step + lane);
    }
  }
}

// The cosine of row r and column j of query `lane`, as its cost was computed.
template <class T>
LWFM_INLINE T cosine_at(const MatchTile<T>& tile, std::int64_t lane, std::int64_t r,
                        std::int64_t j) {
  return tile.raw[(r * tile.P + j) * tile.queries + lane] * tile.row_norms[r] *
         tile.column_norms[j * tile.scale_step + lane];
}

}  // namespace lwfm
