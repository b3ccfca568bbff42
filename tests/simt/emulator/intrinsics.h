// Bits, arithmetic, fences and atomics with CUDA's names.
#pragma once

#include <algorithm>
#include <cmath>

#include "collectives.h"

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}

inline int __float_as_int(float x) { return simt::from_bits<int>(simt::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return simt::from_bits<unsigned>(simt::to_bits(x)); }
inline float __int_as_float(int x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline long long __double_as_longlong(double x) {
  return simt::from_bits<long long>(simt::to_bits(x));
}
inline double __longlong_as_double(long long x) {
  return simt::from_bits<double>(simt::to_bits(x));
}

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __expf(float a) { return std::exp(a); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }

inline void __threadfence() { simt::memory_fence(); }
inline void __threadfence_block() { simt::memory_fence(); }

namespace simt {

template <class T>
struct Same {
  using type = T;
};

// An atomic update that orders nothing else, as on the GPU; returns the old value.
template <class T, class Update>
T atomic_update(T* address, Update update) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Word = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  may_switch();
  Word* const word = reinterpret_cast<Word*>(address);
  Word old = __atomic_load_n(word, __ATOMIC_RELAXED), wanted;
  do {
    wanted = static_cast<Word>(to_bits(static_cast<T>(update(from_bits<T>(old)))));
  } while (
      !__atomic_compare_exchange_n(word, &old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return from_bits<T>(old);
}

}  // namespace simt

#define SIMT_ATOMIC(name, expression)                                           \
  template <class T>                                                            \
  T name(T* address, typename simt::Same<T>::type value) {                      \
    return simt::atomic_update(address, [value](T old) { return expression; }); \
  }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, old < value ? value : old)
SIMT_ATOMIC(atomicExch, (static_cast<void>(old), value))
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
#undef SIMT_ATOMIC

template <class T>
T atomicCAS(T* address, typename simt::Same<T>::type expected,
            typename simt::Same<T>::type wanted) {
  return simt::atomic_update(address, [=](T old) { return old == expected ? wanted : old; });
}
