// Numeric limits and sentinel values of the solver.
#pragma once

#include <limits>

namespace lwfm {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Path lengths and duals are differences of sums of at most 2 * rows entries. Below this magnitude
// they stay finite for any problem that fits in memory; above it, costs are scaled by kShrink.
constexpr double kLargest = 0x1p900;
constexpr double kShrink = 0x1p-200;

}  // namespace lwfm
