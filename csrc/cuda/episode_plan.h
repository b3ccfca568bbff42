// Launch configuration of the kernels on episodes: threads and memory of a block. Plain C++.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "episode_arguments.h"
#include "pair_plan.h"

namespace lwfm {

// Bytes in global memory that stand in for shared memory where that is too small.
constexpr std::size_t kEpisodeWorkspaceBytes = 64 << 20;

struct EpisodePlan {
  bool of_lanes;  // assignments in the registers of a warp
  bool shared;    // what a block needs surely fits into shared memory
  unsigned grid, threads;
  std::size_t shared_bytes;
  std::size_t workspace_bytes;  // of a block, for classes that do not fit into shared memory
  int most_shots;               // of a class; further ones are ignored
};

template <class T>
LWFM_HOST_DEVICE int most_positions(const EpisodeArguments<T>& arguments) {
  int most = 0;
  for (int l = 0; l < arguments.layers; ++l) {
    if (arguments.of[l].P > most) most = arguments.of[l].P;
  }
  return most;
}

// The shots of a class if each of the others has one.
inline int most_shots(const EpisodeLists& lists) {
  return static_cast<int>(std::max<std::int64_t>(1, lists.S - lists.way + 1));
}

// As few warps as do `images` of a block in the same number of rounds, with memory of `of_image`
// bytes for each; what they share takes `of_block`, in the same place or not.
struct BlockBytes {
  std::size_t of_image, of_block;
  bool same_place;
};

inline EpisodePlan plan_blocks(const EpisodeLists& lists, std::int64_t images, bool of_lanes,
                               const BlockBytes& bytes) {
  constexpr int kMostWarps = kPairThreads / 32;
  constexpr std::size_t kDynamicBytes = kSharedBytes - 1024;  // the rest is for static arrays
  const std::size_t room =
      bytes.same_place ? kDynamicBytes : kDynamicBytes - std::min(kDynamicBytes, bytes.of_block);
  const std::int64_t rounds = (images + kMostWarps - 1) / kMostWarps;
  auto warps = static_cast<std::size_t>((images + rounds - 1) / rounds);
  warps = std::min(warps, std::max<std::size_t>(1, room / bytes.of_image));
  const std::size_t of_images = warps * bytes.of_image;
  const std::size_t needed =
      bytes.same_place ? std::max(of_images, bytes.of_block) : of_images + bytes.of_block;
  const bool shared = needed <= kDynamicBytes;
  std::int64_t blocks = std::min(lists.E * lists.Q * lists.way, kMaxGrid);
  if (!shared) {
    blocks =
        std::min<std::int64_t>(blocks, std::max<std::size_t>(1, kEpisodeWorkspaceBytes / needed));
  }
  return {of_lanes,
          shared,
          static_cast<unsigned>(blocks),
          static_cast<unsigned>(32 * warps),
          shared ? needed : kDynamicBytes,
          shared ? 0 : needed,
          most_shots(lists)};
}

// Images of an average class.
inline std::int64_t shots_of_class(const EpisodeLists& lists) {
  return std::max<std::int64_t>(1, (lists.S + lists.way - 1) / lists.way);
}

}  // namespace lwfm
