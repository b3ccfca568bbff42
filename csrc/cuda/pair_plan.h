// Launch configuration of all kernels on P x M blocks: threads per pair, shared-memory staging.
// Plain C++.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "pair_arguments.h"

namespace lwfm {

// What a thread block may have on every GPU without opting in.
constexpr std::size_t kSharedBytes = 48 * 1024;
// The most threads of a block of these kernels.
constexpr int kPairThreads = 256;

// Positions of both images of a pair that every kernel has room for.
constexpr int kMaxPairPositions = 640;

constexpr std::int64_t kMaxGrid = 2147483647;

struct PairPlan {
  bool of_warp;  // a warp for each pair, else a thread block
  bool staged;   // the block of a pair is copied into shared memory
  unsigned grid;
  unsigned threads;
  std::size_t shared_bytes;
};

// `scratch(rows, columns, staged)` is how many numbers of `number_bytes` a pair takes in shared
// memory. Throws std::invalid_argument if that is too much. Lines are the unit of work: pairs of
// few lines get a warp each, four to a block.
template <class Scratch>
PairPlan plan_pairs(const PairShape& shape, std::size_t number_bytes, const Scratch& scratch) {
  constexpr int kWarps = 4, kLinesOfWarp = 64;
  const int lines = shape.rows + shape.columns;
  const auto bytes = [&](bool staged) {
    return number_bytes * static_cast<std::size_t>(scratch(shape.rows, shape.columns, staged));
  };
  if (bytes(false) > kSharedBytes) {
    throw std::invalid_argument("the CUDA kernels have no room for pairs of " +
                                std::to_string(shape.rows) + " x " + std::to_string(shape.columns) +
                                " positions");
  }
  const std::int64_t entries = std::int64_t{shape.rows} * shape.columns;
  const bool staged =
      entries <= static_cast<std::int64_t>(kSharedBytes) && bytes(true) <= kSharedBytes;
  const bool of_warp = staged && lines <= kLinesOfWarp;
  const int pairs =
      of_warp ? static_cast<int>(std::min<std::size_t>(kWarps, kSharedBytes / bytes(true))) : 1;
  const int threads = of_warp ? 32 * pairs : std::min(kPairThreads, (lines + 31) / 32 * 32);
  const std::int64_t blocks = (shape.batch.count + pairs - 1) / pairs;
  return {of_warp, staged, static_cast<unsigned>(std::min(blocks, kMaxGrid)),
          static_cast<unsigned>(threads), bytes(staged) * static_cast<std::size_t>(pairs)};
}

}  // namespace lwfm
