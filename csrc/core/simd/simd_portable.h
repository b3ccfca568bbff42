// Vectors of doubles for any processor, by the vector extension of GCC and Clang: compilers turn
// them into whatever it has. The width is free, so the tests also run the 8-wide code of AVX-512
// through it.
#pragma once

#include <cstdint>

#include "core/simd/simd.h"

namespace lwfm {

// GCC takes no vector size that depends on a template parameter.
template <int kLanes>
struct PortableLanes;
template <>
struct PortableLanes<4> {
  typedef double Numbers __attribute__((vector_size(32)));
  typedef std::int64_t Flags __attribute__((vector_size(32)));
};
template <>
struct PortableLanes<8> {
  typedef double Numbers __attribute__((vector_size(64)));
  typedef std::int64_t Flags __attribute__((vector_size(64)));
};

template <int kLanes>
struct PortableVec {
  static constexpr int kWidth = kLanes;
  using Numbers = typename PortableLanes<kLanes>::Numbers;
  using Flags = typename PortableLanes<kLanes>::Flags;
  struct Mask {
    Flags lanes;  // all bits of a lane are set, or none
  };
  Numbers lanes;

  template <class T>
  static LWFM_INLINE PortableVec load(const T* from) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lanes[k] = static_cast<double>(from[k]);
    return x;
  }
  // The first `count` entries, and zeros; nothing else is read.
  template <class T>
  static LWFM_INLINE PortableVec load_first(const T* from, int count) {
    PortableVec x = set(0.0);
    for (int k = 0; k < kLanes && k < count; ++k) x.lanes[k] = static_cast<double>(from[k]);
    return x;
  }
  static LWFM_INLINE PortableVec set(double value) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lanes[k] = value;
    return x;
  }
  // first, first + 1, ...
  static LWFM_INLINE PortableVec count_from(double first) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lanes[k] = first + k;
    return x;
  }
  LWFM_INLINE void store(double* to) const {
    for (int k = 0; k < kLanes; ++k) to[k] = lanes[k];
  }
  friend LWFM_INLINE PortableVec operator+(PortableVec a, PortableVec b) {
    return {a.lanes + b.lanes};
  }
  friend LWFM_INLINE PortableVec operator-(PortableVec a, PortableVec b) {
    return {a.lanes - b.lanes};
  }
  friend LWFM_INLINE PortableVec operator*(PortableVec a, PortableVec b) {
    return {a.lanes * b.lanes};
  }
  friend LWFM_INLINE PortableVec min(PortableVec a, PortableVec b) { return select(a < b, a, b); }
  friend LWFM_INLINE PortableVec max(PortableVec a, PortableVec b) { return select(b < a, a, b); }
  friend LWFM_INLINE Mask operator<(PortableVec a, PortableVec b) { return {a.lanes < b.lanes}; }
  friend LWFM_INLINE Mask operator==(PortableVec a, PortableVec b) { return {a.lanes == b.lanes}; }
  friend LWFM_INLINE Mask operator&(Mask a, Mask b) { return {a.lanes & b.lanes}; }
  friend LWFM_INLINE PortableVec select(Mask m, PortableVec yes, PortableVec no) {
    const Flags chosen = (reinterpret_cast<Flags>(yes.lanes) & m.lanes) |
                         (reinterpret_cast<Flags>(no.lanes) & ~m.lanes);
    return {reinterpret_cast<Numbers>(chosen)};
  }
  // One bit per lane, the first lane lowest.
  friend LWFM_INLINE std::uint64_t bits(Mask m) {
    std::uint64_t result = 0;
    for (int k = 0; k < kLanes; ++k) result |= static_cast<std::uint64_t>(m.lanes[k]) & (1ULL << k);
    return result;
  }
  // The smallest lane, in every lane.
  friend LWFM_INLINE PortableVec spread_min(PortableVec a) {
    double smallest = a.lanes[0];
    for (int k = 1; k < kLanes; ++k) smallest = a.lanes[k] < smallest ? a.lanes[k] : smallest;
    return set(smallest);
  }
  friend LWFM_INLINE double first(PortableVec a) { return a.lanes[0]; }
};

}  // namespace lwfm
