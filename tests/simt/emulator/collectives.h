// Barriers and warp collectives with CUDA's names and types.
#pragma once

#include <cstring>

#include "runtime.h"

namespace simt {

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// CUDA shuffles numbers of 2, 4 and 8 bytes; a bool or a struct would not compile there either.
template <class T>
T shuffle(unsigned mask, T value, int source, Place place) {
  static_assert(sizeof(T) >= 2 && (std::is_arithmetic_v<T> ? sizeof(T) >= 4 : sizeof(T) == 2));
  return from_bits<T>(warp_collective(Collective::shuffle, mask, to_bits(value), source, place));
}

inline int own_lane() { return static_cast<int>(position().lane); }

inline unsigned reduce(Collective operation, unsigned mask, unsigned value, Place place) {
  return static_cast<unsigned>(warp_collective(operation, mask, value, -1, place));
}

inline int vote(Collective operation, unsigned mask, int predicate, Place place) {
  return static_cast<int>(warp_collective(operation, mask, predicate != 0, -1, place));
}

}  // namespace simt

#define SIMT_PLACE simt::Place place = simt::Place::here()

inline void __syncthreads(SIMT_PLACE) { simt::block_barrier(simt::Barrier::plain, false, place); }
inline int __syncthreads_count(int predicate, SIMT_PLACE) {
  return simt::block_barrier(simt::Barrier::count, predicate != 0, place);
}
inline int __syncthreads_and(int predicate, SIMT_PLACE) {
  return simt::block_barrier(simt::Barrier::all, predicate != 0, place);
}
inline int __syncthreads_or(int predicate, SIMT_PLACE) {
  return simt::block_barrier(simt::Barrier::any, predicate != 0, place);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_PLACE) {
  simt::warp_collective(simt::Collective::sync, mask, 0, -1, place);
}

// Segments of `width` lanes: 2, 4, 8, 16 or 32. A source outside the own segment is the own lane
// (up, down, xor) or wraps (index).
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_PLACE) {
  const int first = simt::own_lane() & ~(width - 1);
  return simt::shuffle(mask, value, first | (source & (width - 1)), place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_PLACE) {
  const int lane = simt::own_lane(), source = lane - static_cast<int>(delta);
  return simt::shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_PLACE) {
  const int lane = simt::own_lane(), source = lane + static_cast<int>(delta);
  return simt::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_PLACE) {
  const int lane = simt::own_lane(), source = lane ^ bits;
  return simt::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, place);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_PLACE) {
  return static_cast<unsigned>(simt::vote(simt::Collective::ballot, mask, predicate, place));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_PLACE) {
  return simt::vote(simt::Collective::any, mask, predicate, place);
}
inline int __all_sync(unsigned mask, int predicate, SIMT_PLACE) {
  return simt::vote(simt::Collective::all, mask, predicate, place);
}

#define SIMT_REDUCE(name, type, operation)                                                     \
  inline type __reduce_##name##_sync(unsigned mask, type value, SIMT_PLACE) {                  \
    return static_cast<type>(                                                                  \
        simt::reduce(simt::Collective::operation, mask, static_cast<unsigned>(value), place)); \
  }
SIMT_REDUCE(add, unsigned, add)
SIMT_REDUCE(add, int, add)
SIMT_REDUCE(min, unsigned, min_unsigned)
SIMT_REDUCE(min, int, min_signed)
SIMT_REDUCE(max, unsigned, max_unsigned)
SIMT_REDUCE(max, int, max_signed)
SIMT_REDUCE(and, unsigned, bit_and)
SIMT_REDUCE(or, unsigned, bit_or)
SIMT_REDUCE(xor, unsigned, bit_xor)
#undef SIMT_REDUCE

template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_PLACE) {
  return static_cast<unsigned>(
      simt::warp_collective(simt::Collective::match_any, mask, simt::to_bits(value), -1, place));
}
