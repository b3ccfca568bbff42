// float16 and bfloat16: every bit pattern, every midpoint, and their neighbors in float32.
#include <cmath>
#include <cstdint>

#include "cpp/check.h"
#include "cuda/portable.h"

namespace {

// The value of a pattern, from the definition of the format.
double value_of(unsigned bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & top;
  const double mantissa = bits & ((1u << mantissa_bits) - 1), sign = (bits >> 15 & 1) != 0 ? -1 : 1;
  const double one = std::ldexp(1.0, mantissa_bits);
  if (exponent == top) return mantissa != 0 ? NAN : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa / one, 1 - bias);
  return sign * std::ldexp(1 + mantissa / one, exponent - bias);
}

template <class Encode, class Decode>
void every_pattern(int exponent_bits, int mantissa_bits, Encode encode, Decode decode) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const double value = value_of(bits, exponent_bits, mantissa_bits);
    const float decoded = decode(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      CHECK(std::isnan(decoded) && std::isnan(decode(encode(decoded))));
      continue;
    }
    CHECK(decoded == value && std::signbit(decoded) == std::signbit(value));
    CHECK(encode(decoded) == bits);
    const unsigned size = bits & 0x7fff;
    if (std::isinf(value)) continue;
    // Halfway to the next larger size, where infinity stands for the next power of two.
    double next = value_of(bits + 1, exponent_bits, mantissa_bits);
    if (std::isinf(next)) next = 2 * value - value_of(bits - 1, exponent_bits, mantissa_bits);
    const auto middle = static_cast<float>((value + next) / 2);
    CHECK(encode(middle) == (size % 2 == 0 ? bits : bits + 1));
    CHECK(encode(std::nextafter(middle, static_cast<float>(value))) == bits);
    CHECK(encode(std::nextafter(middle, static_cast<float>(2 * next))) == bits + 1);
  }
}

}  // namespace

int main() {
  every_pattern(
      5, 10, [](float x) { return __float2half_rn(x).bits; },
      [](std::uint16_t bits) { return __half2float({bits}); });
  every_pattern(
      8, 7, [](float x) { return __float2bfloat16_rn(x).bits; },
      [](std::uint16_t bits) { return __bfloat162float({bits}); });
  return check::result();
}
