// The inner loops over one row of the cost matrix. Every other part of the solver for large
// problems is bookkeeping around these.
#pragma once

#include <cstdint>
#include <limits>

namespace lwfm {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The smallest and second smallest reduced cost factor * row[j] - v[j] of a row. Among equals the
// lower index comes first; second_index is -1 if there is one column only.
struct TwoSmallest {
  double first = kInfinity;
  double second = kInfinity;
  std::int64_t first_index = -1;
  std::int64_t second_index = -1;
};

template <class T>
TwoSmallest two_smallest(const T* row, double factor, const double* v, std::int64_t columns) {
  TwoSmallest best;
  for (std::int64_t j = 0; j < columns; ++j) {
    const double reduced = factor * static_cast<double>(row[j]) - v[j];
    if (reduced < best.second) {
      if (reduced < best.first) {
        best.second = best.first;
        best.second_index = best.first_index;
        best.first = reduced;
        best.first_index = j;
      } else {
        best.second = reduced;
        best.second_index = j;
      }
    }
  }
  return best;
}

// Shortens distance[j] to factor * row[j] - v[j] - length wherever that is shorter, noting `index`
// as the predecessor there. Returns the smallest distance. Columns taken out of the search have
// v = -inf and distance = +inf, and stay so.
template <class T>
double relax_row(const T* row, double factor, const double* v, double length, std::int64_t index,
                 double* distance, std::int64_t* predecessor, std::int64_t columns) {
  double smallest = kInfinity;
  for (std::int64_t j = 0; j < columns; ++j) {
    const double candidate = (factor * static_cast<double>(row[j]) - v[j]) - length;
    if (candidate < distance[j]) {
      distance[j] = candidate;
      predecessor[j] = index;
    }
    if (distance[j] < smallest) smallest = distance[j];
  }
  return smallest;
}

}  // namespace lwfm
