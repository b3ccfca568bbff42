// Minima over the lanes of a warp. Every lane must take part.
#pragma once

#include <cstdint>

#include "portable.h"

namespace lwfm {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

// Numbers as integers in the same order, so that minima cost no float64 instruction, of which many
// GPUs have few; +0 and -0 are one key. Not for NaN.
using Key = long long;

__device__ inline Key key_of(double x) {
  const Key bits = __double_as_longlong(x), sign = bits >> 63;
  return ((bits & 0x7fffffffffffffffLL) ^ sign) - sign;
}

__device__ inline double value_of(Key key) {
  const Key sign = key >> 63;
  return __longlong_as_double(((key ^ sign) - sign) | (sign & (-0x7fffffffffffffffLL - 1)));
}

constexpr Key kInfinityKey = 0x7ff0000000000000LL;

// The smallest key, on every lane: word by word where the hardware reduces words, else by
// exchanging halves.
__device__ inline Key warp_min(Key key) {
#if LWFM_WARP_REDUCE
  const int high = static_cast<int>(key >> 32);
  const int least = __reduce_min_sync(kAllLanes, high);
  const unsigned low = high == least ? static_cast<unsigned>(key) : 0xffffffffu;
  const unsigned least_low = __reduce_min_sync(kAllLanes, low);
  return static_cast<Key>((static_cast<unsigned long long>(static_cast<unsigned>(least)) << 32) |
                          least_low);
#else
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Key other = __shfl_xor_sync(kAllLanes, key, distance);
    key = other < key ? other : key;
  }
  return key;
#endif
}

// A value and what decides between equal values; the smaller order wins.
struct Candidate {
  Key key;
  Key order;
};

__device__ inline bool precedes(const Candidate& a, const Candidate& b) {
  return a.key < b.key || (a.key == b.key && a.order < b.order);
}

__device__ inline Candidate warp_min(const Candidate& own) {
  const Key key = warp_min(own.key);
  return {key, warp_min(own.key == key ? own.order : 0x7fffffffffffffffLL)};
}

}  // namespace lwfm
