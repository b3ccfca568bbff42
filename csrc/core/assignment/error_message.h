// Error messages for problems that could not be solved.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/status.h"

namespace lwfm {

// "name[3, 0, 1]"; just the name if there is no index.
inline std::string subscript(const std::string& name, const std::vector<std::int64_t>& index) {
  std::string text;
  for (const std::int64_t i : index) {
    text += (text.empty() ? "[" : ", ") + std::to_string(i);
  }
  return index.empty() ? name : name + text + "]";
}

// The message for a problem that ended with `status` (not ok). `index` is the problem's place in
// its batch, empty for a single matrix.
template <class T>
std::string describe_failure(Status status, const CostMatrix<T>& cost, bool maximize,
                             const std::string& name, std::vector<std::int64_t> index) {
  const std::string forbidden = maximize ? "-inf" : "+inf";
  if (status == Status::out_of_memory) {
    return "not enough memory to solve " + subscript(name, index);
  }
  if (status == Status::infeasible) {
    return "cost matrix is infeasible: every complete assignment of " + subscript(name, index) +
           " uses a forbidden (" + forbidden + ") pair";
  }
  std::string text = "matrix contains invalid numeric entries";
  for (std::int64_t i = 0; i < cost.rows; ++i) {
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const double entry = static_cast<double>(cost.at(i, j));
      if (std::isnan(entry) || (std::isinf(entry) && (entry > 0) == maximize)) {
        index.push_back(i);
        index.push_back(j);
        return text + ": " + subscript(name, index) +
               (std::isnan(entry) ? " is nan"
                : maximize        ? " is inf"
                                  : " is -inf") +
               " (" + forbidden + " forbids a pair)";
      }
    }
  }
  return text;
}

}  // namespace lwfm
