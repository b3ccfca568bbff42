// A transport problem as the solver reads it, and the memory of one solving thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/interruption.h"
#include "core/transport/small_basis.h"
#include "core/transport/spanning_tree.h"

namespace lwfm {

// Costs with the shorter side as rows, in a copy: rows of `length` entries, a multiple of the
// widest vector; those from `columns` on are +inf.
struct TransportCost {
  const double* data;
  std::int64_t rows, columns, length;

  const double* row(std::int64_t i) const { return data + i * length; }
  double at(std::int64_t i, std::int64_t j) const { return row(i)[j]; }
};

// Grows to the largest problem seen and is reused for the next one.
struct TransportWorkspace {
  std::vector<double> cost;                            // the copy of the entries
  std::vector<std::int64_t> supply, demand;            // [rows], [columns]
  std::vector<double> prices;                          // [length]: of columns; -inf: closed
  std::vector<std::pair<double, std::int64_t>> turns;  // rows in the order in which they start
  std::vector<SpanningTree::Step> steps;
  std::vector<double> left;  // [nodes]: what a line has not sent or received yet
  SmallBasis small;
  SpanningTree tree;
  Watch watch;
};

}  // namespace lwfm
