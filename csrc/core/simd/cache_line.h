// A cache line of numbers in registers: one vector of 64 bytes or two of 32, with the same result.
#pragma once

#include <cstdint>

#include "core/simd/lanes.h"

namespace lwfm {

template <class T>
constexpr std::int64_t kCacheLine = kWide / static_cast<std::int64_t>(sizeof(T));

template <class T, int kBytes>
struct CacheLine;

template <class T>
struct CacheLine<T, kWide> {
  Lanes<T, kWide> all{};

  LWFM_INLINE void read(const T* from) { load(from, all); }
  LWFM_INLINE void write(T* to) const { store(all, to); }
  LWFM_INLINE void add(const CacheLine& x) { all += x.all; }
  LWFM_INLINE void subtract(T x) { all -= x; }
  LWFM_INLINE void add_product(const CacheLine& x, const CacheLine& y) { all += x.all * y.all; }
  LWFM_INLINE void add_multiple(const CacheLine& x, T factor) { all += x.all * factor; }

  LWFM_INLINE T sum() const {
    Lanes<T, kNarrow> low, high;
    std::memcpy(&low, &all, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&all) + sizeof low, sizeof high);
    return sum_of_lanes<T>(low + high);
  }
};

template <class T>
struct CacheLine<T, kNarrow> {
  Lanes<T> low{}, high{};

  LWFM_INLINE void read(const T* from) {
    load(from, low);
    load(from + kLanes<T>, high);
  }
  LWFM_INLINE void write(T* to) const {
    store(low, to);
    store(high, to + kLanes<T>);
  }
  LWFM_INLINE void add(const CacheLine& x) {
    low += x.low;
    high += x.high;
  }
  LWFM_INLINE void subtract(T x) {
    low -= x;
    high -= x;
  }
  LWFM_INLINE void add_product(const CacheLine& x, const CacheLine& y) {
    low += x.low * y.low;
    high += x.high * y.high;
  }
  LWFM_INLINE void add_multiple(const CacheLine& x, T factor) {
    low += x.low * factor;
    high += x.high * factor;
  }
  LWFM_INLINE T sum() const { return sum_of_lanes<T>(low + high); }
};

}  // namespace lwfm
