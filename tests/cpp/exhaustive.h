// All complete assignments of a small problem, by trying them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "problems.h"

namespace exhaustive {

using Columns = std::vector<std::int64_t>;

// Calls use(columns, costs) for every assignment of the whole shorter side without forbidden pairs.
template <class T>
void for_each_assignment(
    const lwfm::CostMatrix<T>& cost,
    const std::function<void(const Columns&, const std::vector<double>&)>& use) {
  Columns columns(static_cast<std::size_t>(cost.rows), -1);
  std::vector<double> costs;
  std::vector<char> taken(static_cast<std::size_t>(cost.columns), 0);
  const std::function<void(std::int64_t, std::int64_t)> choose = [&](std::int64_t row,
                                                                     std::int64_t left_out) {
    if (row == cost.rows) return use(columns, costs);
    const auto i = static_cast<std::size_t>(row);
    if (left_out > 0) choose(row + 1, left_out - 1);
    if (cost.rows - row == left_out) return;
    for (std::int64_t j = 0; j < cost.columns; ++j) {
      const auto entry = static_cast<double>(cost.at(row, j));
      if (taken[static_cast<std::size_t>(j)] != 0 || std::isinf(entry)) continue;
      taken[static_cast<std::size_t>(j)] = 1;
      columns[i] = j;
      costs.push_back(entry);
      choose(row + 1, left_out);
      costs.pop_back();
      columns[i] = -1;
      taken[static_cast<std::size_t>(j)] = 0;
    }
  };
  choose(0, std::max<std::int64_t>(0, cost.rows - cost.columns));
}

// Random entries: fractions of 2^20, whose sums are exact, or integers below `values` if that is
// not zero; some forbidden.
template <class T>
problems::Problem<T> random_problem(std::mt19937_64& engine, std::int64_t rows,
                                    std::int64_t columns, std::uint64_t values, bool maximize,
                                    double forbidden) {
  return problems::make<T>(rows, columns, [&] {
    const double draw = static_cast<double>(engine() % 1000) / 1000.0;
    if (std::is_floating_point_v<T> && draw < forbidden) {
      return maximize ? -lwfm::kInfinity : lwfm::kInfinity;
    }
    if (values != 0) return static_cast<double>(engine() % values);
    return static_cast<double>(engine() % (1 << 20)) / (1 << 20);
  });
}

// Calls use(level) for every instruction set of this processor.
inline void for_each_level(const std::function<void(lwfm::SimdLevel)>& use) {
  for (const auto level :
       {lwfm::SimdLevel::portable, lwfm::SimdLevel::avx2, lwfm::SimdLevel::avx512}) {
    if (level <= lwfm::supported_level()) use(level);
  }
}

}  // namespace exhaustive
