// Memory of one solving thread. It grows to the largest problem seen and is reused for the next
// one, so a batch allocates nothing per problem.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "small_state.h"

namespace lwfm {

struct Workspace {
  // One entry per column (the longer side).
  std::vector<double> v;                    // column duals, at most 0 where a column may stay free
  std::vector<double> distance;             // shortest alternating path found so far; +inf: scanned
  std::vector<double> nearest;              // smallest distances of each block of columns
  std::vector<double> predecessor;          // row before it on that path, as a double
  std::vector<std::int64_t> column_to_row;  // -1: the column is free
  // One entry per row (the shorter side).
  std::vector<std::int64_t> row_to_column;  // -1: the row is not assigned yet
  std::vector<std::int64_t> free_rows;      // rows to assign in this pass
  std::vector<std::int64_t> displaced;      // rows left for the next pass
  std::vector<std::int64_t> scanned;        // columns of the search tree in order of discovery
  std::vector<double> scanned_v;            // their duals before the search
  std::vector<double> scanned_distance;     // their distances
  // Entries rewritten row by row: transposed, unevenly strided or integer input only.
  std::vector<float> entries_float;
  std::vector<double> entries_double;
  // Problems of few columns live here instead.
  SmallState small;

  void reserve(std::int64_t rows, std::int64_t columns) {
    const auto n = static_cast<std::size_t>(rows);
    const auto m = static_cast<std::size_t>(columns);
    v.assign(m, 0.0);
    distance.resize(m);
    nearest.resize(m / 8 + 8);
    predecessor.resize(m);
    column_to_row.assign(m, -1);
    row_to_column.assign(n, -1);
    free_rows.clear();
    free_rows.reserve(n);
    displaced.clear();
    displaced.reserve(n);
    scanned.resize(m);
    scanned_v.resize(m);
    scanned_distance.resize(m);
  }

  std::vector<float>& entries(float) { return entries_float; }
  std::vector<double>& entries(double) { return entries_double; }
};

}  // namespace lwfm
