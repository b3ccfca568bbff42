// What fuzz targets share: values from bytes, and a check that ends the run.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "core/assignment/limits.h"

namespace fuzz {

// Takes values off the front of the input; zeros when it has run out.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  template <class T>
  T take() {
    // Through an array: of a value that is copied over in part, compilers have dropped the zeros.
    std::array<std::uint8_t, sizeof(T)> bytes{};
    const std::size_t count = std::min(sizeof(T), size_);
    std::copy_n(data_, count, bytes.begin());
    data_ += count;
    size_ -= count;
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// Entries of one of three kinds: any bit pattern, a few small numbers, or mostly forbidden pairs.
template <class T>
T entry(Bytes& bytes, int kind) {
  if (kind == 0) return bytes.take<T>();
  const auto byte = bytes.take<std::uint8_t>();
  if (std::is_floating_point_v<T> && kind == 2 && byte % 4 != 0) {
    return static_cast<T>(lwfm::kInfinity);
  }
  return static_cast<T>(byte % 8);
}

// Calls solve(T{}, bytes, rows, columns, kind of entries, maximize), as the first bytes choose, for
// sides below `most`.
template <class Solve>
void with_problem(const std::uint8_t* data, std::size_t size, std::int64_t most,
                  const Solve& solve) {
  Bytes bytes(data, size);
  const std::int64_t rows = bytes.take<std::uint8_t>() % most;
  const std::int64_t columns = bytes.take<std::uint8_t>() % most;
  const auto choice = bytes.take<std::uint8_t>();
  const int kind = choice % 3;
  const bool maximize = choice / 3 % 2 == 1;
  switch (choice / 6 % 4) {
    case 0:
      return solve(float{}, bytes, rows, columns, kind, maximize);
    case 1:
      return solve(double{}, bytes, rows, columns, kind, maximize);
    case 2:
      return solve(std::int8_t{}, bytes, rows, columns, kind, maximize);
    default:
      return solve(std::int64_t{}, bytes, rows, columns, kind, maximize);
  }
}

}  // namespace fuzz
