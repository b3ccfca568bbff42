// The basis of a transport problem of few lines: the same tree as a SpanningTree, kept so that a
// pivot is a few passes over short arrays without branches.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/transport/spanning_tree.h"

namespace lwfm {

// Rows are nodes 0 to rows - 1, columns the nodes after them. Arcs have numbers. The path of a node
// to the root is two sets of arcs: those that it runs along, from row to column, and those against.
struct SmallBasis {
  static constexpr std::int64_t kLines = 64;  // as many as a word has bits
  static constexpr std::int64_t kPadded = kLines + 8;

  std::int64_t rows, lines, padded;  // padded: lines, rounded up to whole vectors
  double tolerance;                  // of the bounds, as in SpanningTree
  alignas(64) std::uint64_t along[kLines], against[kLines];
  alignas(64) double sign[kLines];  // of a row 1, of a column -1
  alignas(64) double dual[kPadded], bound[kPadded];
  alignas(64) std::int64_t flow[kLines];
  std::int32_t row[kLines], column[kLines];  // of an arc; the column as a node

  static bool fits(std::int64_t rows, std::int64_t columns) { return rows + columns <= kLines; }

  // Makes the tree of these steps. cost(i, j) is an entry.
  template <class Cost>
  void build(std::int64_t row_count, const std::vector<SpanningTree::Step>& steps, double relative,
             const Cost& cost) {
    rows = row_count;
    lines = static_cast<std::int64_t>(steps.size()) + 1;
    padded = (lines + 7) / 8 * 8;
    tolerance = relative;
    for (std::int64_t node = 0; node < padded; ++node) {
      along[node] = against[node] = 0;
      sign[node] = node < rows ? 1.0 : -1.0;
      flow[node] = 0;
    }
    for (std::int64_t node = 0; node < kPadded; ++node) dual[node] = bound[node] = 0.0;
    for (std::size_t k = steps.size(); k-- > 0;) {
      const auto [line, partner, amount] = steps[k];
      const bool of_row = line < rows;
      const std::uint64_t bit = std::uint64_t{1} << k;
      along[line] = along[partner] | (of_row ? bit : 0);
      against[line] = against[partner] | (of_row ? 0 : bit);
      row[k] = of_row ? line : partner;
      column[k] = of_row ? partner : line;
      flow[k] = amount;
      dual[line] = cost(row[k], column[k] - rows) - dual[partner];
      bound[line] = dual[line] - tolerance * std::fabs(dual[line]);
    }
  }

  // Writes the tree as steps again: each takes a leaf off.
  void write(std::vector<SpanningTree::Step>& steps) const {
    std::int64_t arcs_of[kLines], degree[kLines];  // the sum of the arcs' numbers; how many
    for (std::int64_t node = 0; node < lines; ++node) arcs_of[node] = degree[node] = 0;
    for (std::int64_t k = 0; k + 1 < lines; ++k) {
      for (const std::int32_t node : {row[k], column[k]}) {
        arcs_of[node] += k;
        ++degree[node];
      }
    }
    steps.clear();
    for (std::int64_t first = 0; first < lines; ++first) {
      for (std::int64_t node = first; degree[node] == 1;) {
        const std::int64_t k = arcs_of[node];
        const std::int64_t partner = node == row[k] ? column[k] : row[k];
        steps.push_back({static_cast<SpanningTree::Index>(node),
                         static_cast<SpanningTree::Index>(partner), flow[k]});
        degree[node] = 0;
        arcs_of[partner] -= k;
        --degree[partner];
        if (partner < first) node = partner;  // a later one has its turn
      }
    }
  }
};

}  // namespace lwfm
