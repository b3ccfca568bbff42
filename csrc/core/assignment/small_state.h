// What a small problem needs besides its registers.
#pragma once

#include <cstdint>

#include "core/assignment/limits.h"

namespace lwfm {

// Problems of at most this many columns are solved by the small solver, which keeps them in
// registers.
constexpr std::int64_t kSmallColumns = 32;

struct SmallState {
  // Rows of the cost matrix in float64, each padded with +inf to whole vectors.
  alignas(64) double cost[kSmallColumns * kSmallColumns];
  alignas(64) double v[kSmallColumns];
  alignas(64) double predecessor[kSmallColumns];  // row numbers, exact in a double
  std::int32_t row_to_column[kSmallColumns];
  std::int32_t column_to_row[kSmallColumns + 1];  // the last one belongs to no column
};

// -inf with +inf in the middle: any window of it has at most one +inf.
struct InfiniteLane {
  double lanes[2 * kSmallColumns];
  constexpr InfiniteLane() : lanes() {
    for (double& lane : lanes) lane = -kInfinity;
    lanes[kSmallColumns] = kInfinity;
  }
};
inline constexpr InfiniteLane kInfiniteLane;

enum class SmallStatus { ok, invalid_entry, infeasible, huge_entry };

}  // namespace lwfm
