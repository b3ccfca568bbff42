// Groups of pairs with small blocks for layer-wise embedding, as many at a time as the vectors of
// an instruction set have lanes: see embedding_weights_lanes.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/matching/embedding_weights_lanes.h"
#include "core/simd/dispatch.h"
#include "core/simd/simd.h"

namespace lwfm {

// Entries of the largest blocks that are processed in groups, which fit in L2. Time of a group
// beside single blocks, forward and backward, float32 on an AVX-512 machine: 0.6 and 0.7 with 49
// positions, 0.8 and 0.9 with 100, 1.0 and 1.8 with 196, whose groups take 10 MB.
constexpr std::int64_t kGroupedEntries = 2500;

// How many pairs make a group: as many as the widest vectors have lanes.
template <class T>
constexpr int kGroup = kLanes<T, kWide>;

// Pairs with blocks of one shape; pairs beyond `count` are not looked at.
template <class T>
struct PairGroup {
  ScaledBlock<T> blocks[kGroup<T>];
  int count;  // 1 to kGroup
};

// The arithmetic for either size of vectors; memory only for the one in use.
template <class T>
class GroupWeights {
 public:
  template <int kBytes>
  LWFM_INLINE void forward(const PairGroup<T>& group, T temperature, T* a, T* b) {
    const std::int64_t rows = group.blocks[0].raw.rows, columns = group.blocks[0].raw.columns;
    for (int k = 0; k < group.count; k += kLanes<T, kBytes>) {
      of(VectorBytes<kBytes>{})
          .forward(group.blocks + k, std::min(group.count - k, kLanes<T, kBytes>), temperature,
                   a + k * rows, b + k * columns);
    }
  }

  template <int kBytes>
  LWFM_INLINE void backward(const PairGroup<T>& group, T temperature,
                            const WeightGradients<T>* from, const BlockGradient<T>* to) {
    for (int k = 0; k < group.count; k += kLanes<T, kBytes>) {
      of(VectorBytes<kBytes>{})
          .backward(group.blocks + k, std::min(group.count - k, kLanes<T, kBytes>), temperature,
                    from + k, to + k);
    }
  }

 private:
  LaneWeights<T, kNarrow>& of(VectorBytes<kNarrow>) { return narrow_; }
  LaneWeights<T, kWide>& of(VectorBytes<kWide>) { return wide_; }

  LaneWeights<T, kNarrow> narrow_;
  LaneWeights<T, kWide> wide_;
};

// As `weigh`, for a group: writes a [count, rows] and b [count, columns].
template <class T>
void weigh_group(GroupWeights<T>& workspace, const PairGroup<T>& group, T temperature, T* a, T* b,
                 SimdLevel level = simd_level()) {
  vectorized(
      [&](auto bytes) LWFM_INLINE_LAMBDA {
        workspace.template forward<decltype(bytes)::value>(group, temperature, a, b);
      },
      level);
}

// As `weigh_backward`, for a group; `from` and `to` have an entry for each of its pairs.
template <class T>
void weigh_group_backward(GroupWeights<T>& workspace, const PairGroup<T>& group, T temperature,
                          const WeightGradients<T>* from, const BlockGradient<T>* to,
                          SimdLevel level = simd_level()) {
  vectorized(
      [&](auto bytes) LWFM_INLINE_LAMBDA {
        workspace.template backward<decltype(bytes)::value>(group, temperature, from, to);
      },
      level);
}

}  // namespace lwfm
