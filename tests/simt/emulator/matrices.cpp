// Products of matrices that a warp holds together; the last lane to come computes all of it.
#include <cmath>

#include "machine.h"

namespace simt {

namespace {

constexpr int kRows = 16, kColumns = 16, kDepth = 8;

const MatrixOperands& operands_of(unsigned warp, unsigned lane) {
  return *reinterpret_cast<const MatrixOperands*>(machine.thread(warp, lane).value);
}

// Calls use(entry number, of the lane's entries, which one) with all entries of a matrix.
template <class Use>
void for_each_entry(int entries, const Use& use) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int n = 0; n < entries / 32; ++n) use(matrix_entry(lane, n), lane, n);
  }
}

float rounded(float x, const Thread& thread) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (!std::isnan(x) && (bits & 0x1fffu) != 0) {
    fail("mma_sync at " + describe(thread.place) + ": an operand is not rounded to TF32");
  }
  return x;
}

// Tensor cores cut off what a float32 does not hold.
float toward_zero(double x) {
  const auto nearest = static_cast<float>(x);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? std::nextafterf(nearest, 0.0f)
                                                                : nearest;
}

}  // namespace

void multiply_matrices(unsigned warp) {
  float a[kRows * kDepth], b[kDepth * kColumns], c[kRows * kColumns];
  for_each_entry(kRows * kDepth, [&](int entry, int lane, int n) {
    const auto number = static_cast<unsigned>(lane);
    const MatrixOperands& operands = operands_of(warp, number);
    a[entry] = rounded(operands.a[n], machine.thread(warp, number));
    b[entry] = rounded(operands.b[n], machine.thread(warp, number));
  });
  for_each_entry(kRows * kColumns, [&](int entry, int lane, int n) {
    c[entry] = operands_of(warp, static_cast<unsigned>(lane)).c[n];
  });
  for_each_entry(kRows * kColumns, [&](int entry, int lane, int n) {
    double sum = c[entry];
    for (int k = 0; k < kDepth; ++k) {
      sum += static_cast<double>(a[entry / kColumns * kDepth + k]) *
             static_cast<double>(b[k * kColumns + entry % kColumns]);
    }
    operands_of(warp, static_cast<unsigned>(lane)).d[n] = toward_zero(sum);
  });
}

void meet_for_matrix(Collective operation, const void* address, unsigned stride, Place place) {
  const auto number = reinterpret_cast<std::uint64_t>(address);
  if (number % 32 != 0 || stride % 4 != 0) {
    fail(std::string(name_of(operation)) + " at " + describe(place) +
         ": the address must be a multiple of 32 bytes and the stride one of 4 numbers");
  }
  warp_collective(operation, 0xffffffffu, number, -1, place);
}

void multiply_fragments(const MatrixOperands& operands, Place place) {
  warp_collective(Collective::multiply_matrices, 0xffffffffu,
                  reinterpret_cast<std::uint64_t>(&operands), -1, place);
}

}  // namespace simt
