// Error messages for transport problems that could not be solved.
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "core/assignment/error_message.h"
#include "core/transport.h"

namespace lwfm {

// The digits that tell a number from others, and no more.
inline std::string digits_of(double number) {
  std::ostringstream text;
  text.precision(10);
  text << number;
  return text.str();
}

template <class T>
std::string describe_weight(const WeightView<T>& weights, const std::string& name,
                            std::vector<std::int64_t> index) {
  const std::int64_t i = invalid_weight(weights);
  index.push_back(i);
  return subscript(name, index) + " is " + digits_of(weights[i]) +
         ": weights must be finite and not negative";
}

// The message for a problem that ended with `status`, one that is about its numbers. `index` is its
// place in the batch, empty for a single problem.
template <class T>
std::string describe_failure(TransportStatus status, const TransportProblem<T>& problem,
                             std::vector<std::int64_t> index) {
  if (status == TransportStatus::invalid_row_weight) {
    return describe_weight(problem.row_weights, "row_weights", index);
  }
  if (status == TransportStatus::invalid_column_weight) {
    return describe_weight(problem.column_weights, "column_weights", index);
  }
  if (status == TransportStatus::unequal_sums) {
    return subscript("row_weights", index) + " sums to " + digits_of(sum_of(problem.row_weights)) +
           " and " + subscript("column_weights", index) + " to " +
           digits_of(sum_of(problem.column_weights)) + ": the sums must be equal, up to " +
           digits_of(kWeightTolerance) + " of them";
  }
  const CostMatrix<T>& cost = problem.cost;
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const double entry = static_cast<double>(cost.at(i, j));
      if (std::isfinite(entry)) continue;
      index.push_back(i);
      index.push_back(j);
      return subscript("cost", index) + " is " + digits_of(entry) + ": costs must be finite";
    }
  }
  return "costs must be finite";
}

}  // namespace lwfm
