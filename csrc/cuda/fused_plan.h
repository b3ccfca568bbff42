// Which way lwfm::episodes takes on CUDA, and the launch configuration of the kernel that
// multiplies positions itself. Plain C++.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "episode_plan.h"
#include "pair_arguments.h"

namespace lwfm {

// Positions of support images in a tile, and of queries: many where there are blocks for every
// multiprocessor, else few.
constexpr int kFusedRows = 64, kFusedColumns = 64, kFusedColumnsOfFew = 32;
// float64 has no room for more.
constexpr int kFusedDoubles = 32;

struct FusedPlan {
  int queries;          // of a block
  std::int64_t groups;  // of queries of an episode
  std::int64_t blocks;
  unsigned grid;
  int most_shots;  // of a class; further ones are ignored
};

inline FusedPlan plan_fused(const EpisodeLists& lists, int P, int columns) {
  const int queries = std::max(1, columns / P);
  const std::int64_t groups = (lists.Q + queries - 1) / queries,
                     blocks = lists.E * lists.way * groups;
  return {queries, groups, blocks, static_cast<unsigned>(std::min(blocks, kMaxGrid)),
          most_shots(lists)};
}

// What the choice depends on.
struct EpisodesShape {
  struct Layer {
    std::int64_t P, C;
  };
  EpisodeLists lists;
  bool merged;  // all shots of a class matched at once
  std::vector<Layer> layers;
  std::int64_t number_bytes;

  std::int64_t positions() const {
    std::int64_t most = 0;
    for (const Layer& layer : layers) most = std::max(most, layer.P);
    return most;
  }
};

// Whether the kernel can do it: assignments take the registers of a warp.
inline bool can_fuse(const EpisodesShape& shape) {
  return !shape.merged && shape.positions() <= kMaxAssignedPositions;
}

// Bytes that the blocks read of positions, mostly from the cache.
inline std::int64_t bytes_of_tiles(const EpisodesShape& shape, int rows, int columns) {
  const EpisodeLists& lists = shape.lists;
  const std::int64_t shots = shots_of_class(lists), queries = columns / shape.positions();
  const std::int64_t groups = lists.E * lists.way * ((lists.Q + queries - 1) / queries);
  std::int64_t bytes = 0;
  for (const EpisodesShape::Layer& layer : shape.layers) {
    const std::int64_t images = rows / layer.P, tiles = (shots + images - 1) / images;
    bytes += groups * shape.number_bytes * layer.P * layer.C * (2 * shots + tiles * queries);
  }
  return bytes;
}

// Bytes that pass through memory because the products are matrices: what is gathered by lists,
// written and read; R, written once and read three times.
inline std::int64_t bytes_of_matrices(const EpisodesShape& shape) {
  const EpisodeLists& lists = shape.lists;
  std::int64_t bytes = 0;
  for (const EpisodesShape::Layer& layer : shape.layers) {
    const std::int64_t gathered =
        lists.support == nullptr ? 0 : 2 * (lists.S + lists.Q) * layer.P * layer.C;
    bytes += lists.E * shape.number_bytes *
             (gathered + 4 * lists.S * (lists.Q + lists.S) * layer.P * layer.P);
  }
  return bytes;
}

// The rule. Few blocks: a matrix product has too few of its own tiles for all multiprocessors, and
// waits as long for its channels. Many: whatever reads less, where a cache is twice as fast as
// memory. Predicted, not measured yet.
inline bool should_fuse(const EpisodesShape& shape, int multiprocessors) {
  constexpr std::int64_t kWaves = 4, kCacheSpeed = 2;
  if (!can_fuse(shape)) return false;
  const bool of_floats = shape.number_bytes == 4;
  const int rows = of_floats ? kFusedRows : kFusedDoubles,
            columns = of_floats ? kFusedColumns : kFusedDoubles;
  const FusedPlan plan = plan_fused(shape.lists, static_cast<int>(shape.positions()), columns);
  return plan.blocks <= kWaves * multiprocessors ||
         bytes_of_tiles(shape, rows, columns) <= kCacheSpeed * bytes_of_matrices(shape);
}

}  // namespace lwfm
