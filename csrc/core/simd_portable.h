// Vectors of doubles in plain C++, for any processor; compilers turn the loops into whatever it
// has. The width is free, so the tests also run the 8-wide code of AVX-512 through it.
#pragma once

#include <cstdint>
#include <limits>

namespace lwfm {

template <int kLanes>
struct PortableVec {
  static constexpr int kWidth = kLanes;
  struct Mask {
    bool lane[kLanes];
  };
  double lane[kLanes];

  template <class T>
  static PortableVec load(const T* from) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lane[k] = static_cast<double>(from[k]);
    return x;
  }
  // The first `count` entries, and zeros; nothing else is read.
  template <class T>
  static PortableVec load_first(const T* from, int count) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lane[k] = k < count ? static_cast<double>(from[k]) : 0.0;
    return x;
  }
  static PortableVec set(double value) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lane[k] = value;
    return x;
  }
  // first, first + 1, ...
  static PortableVec count_from(double first) {
    PortableVec x;
    for (int k = 0; k < kLanes; ++k) x.lane[k] = first + k;
    return x;
  }
  void store(double* to) const {
    for (int k = 0; k < kLanes; ++k) to[k] = lane[k];
  }
  friend PortableVec operator+(PortableVec a, PortableVec b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] += b.lane[k];
    return a;
  }
  friend PortableVec operator-(PortableVec a, PortableVec b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] -= b.lane[k];
    return a;
  }
  friend PortableVec operator*(PortableVec a, PortableVec b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] *= b.lane[k];
    return a;
  }
  friend PortableVec min(PortableVec a, PortableVec b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] = a.lane[k] < b.lane[k] ? a.lane[k] : b.lane[k];
    return a;
  }
  friend PortableVec max(PortableVec a, PortableVec b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] = a.lane[k] > b.lane[k] ? a.lane[k] : b.lane[k];
    return a;
  }
  friend Mask operator<(PortableVec a, PortableVec b) {
    Mask m;
    for (int k = 0; k < kLanes; ++k) m.lane[k] = a.lane[k] < b.lane[k];
    return m;
  }
  friend Mask operator==(PortableVec a, PortableVec b) {
    Mask m;
    for (int k = 0; k < kLanes; ++k) m.lane[k] = a.lane[k] == b.lane[k];
    return m;
  }
  friend Mask operator&(Mask a, Mask b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] = a.lane[k] && b.lane[k];
    return a;
  }
  friend PortableVec select(Mask m, PortableVec yes, PortableVec no) {
    for (int k = 0; k < kLanes; ++k) no.lane[k] = m.lane[k] ? yes.lane[k] : no.lane[k];
    return no;
  }
  // One bit per lane, the first lane lowest.
  friend std::uint64_t bits(Mask m) {
    std::uint64_t result = 0;
    for (int k = 0; k < kLanes; ++k) result |= static_cast<std::uint64_t>(m.lane[k]) << k;
    return result;
  }
  // The smallest lane, in every lane.
  friend PortableVec spread_min(PortableVec a) {
    double smallest = a.lane[0];
    for (int k = 1; k < kLanes; ++k) smallest = a.lane[k] < smallest ? a.lane[k] : smallest;
    return set(smallest);
  }
  friend double first(PortableVec a) { return a.lane[0]; }
};

}  // namespace lwfm
