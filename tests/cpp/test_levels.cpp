// Every instruction set gives the same assignment and the same duals, bit for bit. The 8-wide code
// of AVX-512 also runs on plain C++, so that it is executed on processors without it.
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "core/assignment.h"
#include "problems.h"

namespace lwfm::wide {
using Vec = PortableVec<8>;
#define LWFM_TARGET
#include "core/assignment/scan_kernel.h"
#include "core/assignment/small_kernel.h"
#undef LWFM_TARGET
}  // namespace lwfm::wide

namespace {

using lwfm::SimdLevel;

struct Run {
  int status;
  std::vector<std::int64_t> assignment;
  std::vector<double> u, v;

  bool operator==(const Run& other) const {
    return status == other.status && assignment == other.assignment && u == other.u && v == other.v;
  }
};

template <class T>
Run run(const lwfm::CostMatrix<T>& cost, lwfm::Workspace& workspace, SimdLevel level) {
  Run result{0, std::vector<std::int64_t>(static_cast<std::size_t>(cost.rows)),
             std::vector<double>(static_cast<std::size_t>(cost.rows)),
             std::vector<double>(static_cast<std::size_t>(cost.columns))};
  result.status = static_cast<int>(lwfm::solve(cost, {}, workspace, result.assignment.data(),
                                               {result.u.data(), result.v.data()}, level));
  return result;
}

// The same through the 8-wide portable kernels; the shapes below need no preparation.
template <class T>
Run run_wide(const lwfm::CostMatrix<T>& cost, lwfm::Workspace& workspace) {
  Run result = run(cost, workspace, SimdLevel::portable);
  auto problem = lwfm::prepare(cost, false, workspace);
  if (cost.columns <= lwfm::kSmallColumns) {
    result.status = static_cast<int>(lwfm::wide::solve_small(problem.cost, workspace.small));
    if (result.status != 0) return result;
    const lwfm::Answer<std::int32_t> answer{workspace.small.row_to_column, workspace.small.v};
    lwfm::write_answer(problem, answer, result.assignment.data(),
                       {result.u.data(), result.v.data()});
  } else {
    result.status = static_cast<int>(
        lwfm::solve_large<lwfm::wide::Scan>(problem.cost, workspace, lwfm::Options{}));
    if (result.status != 0) return result;
    const lwfm::Answer<std::int64_t> answer{workspace.row_to_column.data(), workspace.v.data()};
    lwfm::write_answer(problem, answer, result.assignment.data(),
                       {result.u.data(), result.v.data()});
  }
  return result;
}

template <class T>
void levels_agree(std::int64_t rows, std::int64_t columns, std::mt19937_64& engine) {
  lwfm::Workspace workspace;
  const auto range = std::int64_t{1} << (1 + engine() % 40);
  const bool forbid = engine() % 3 == 0;
  const auto problem = problems::make<T>(rows, columns, [&] {
    const double entry = static_cast<double>(static_cast<std::int64_t>(engine()) % range);
    return forbid && engine() % 4 == 0 ? lwfm::kInfinity : entry;
  });
  const Run expected = run(problem.cost(), workspace, SimdLevel::portable);
  for (const SimdLevel level : {SimdLevel::avx2, SimdLevel::avx512}) {
    if (level <= lwfm::supported_level()) {
      CHECK(run(problem.cost(), workspace, level) == expected);
    }
  }
  CHECK(run_wide(problem.cost(), workspace) == expected);
}

// The number of tight columns, and the first of them, by a loop and by the kernels of one width.
template <class Scan, class T>
void tight_columns_are_found(const std::vector<T>& row, const std::vector<double>& v) {
  const auto columns = static_cast<std::int64_t>(row.size());
  std::int64_t count = 0, first = -1;
  for (std::int64_t j = columns; j-- > 0;) {
    const auto k = static_cast<std::size_t>(j);
    if (2.0 * static_cast<double>(row[k]) != v[k]) continue;
    ++count;
    first = j;
  }
  CHECK(Scan::count_tight(row.data(), 2.0, v.data(), columns) == count);
  CHECK(Scan::first_tight(row.data(), 2.0, v.data(), columns) == first);
}

template <class T>
void every_width_finds_tight_columns(std::size_t columns, unsigned one_in,
                                     std::mt19937_64& engine) {
  std::vector<T> row(columns);
  std::vector<double> v(columns);
  for (std::size_t j = 0; j < columns; ++j) {
    row[j] = static_cast<T>(engine() % 5);
    v[j] = 2.0 * static_cast<double>(row[j]) + (engine() % one_in == 0 ? 0.0 : 1.0);
    if (engine() % 7 == 0) v[j] = -lwfm::kInfinity;
  }
  tight_columns_are_found<lwfm::portable::Scan>(row, v);
  tight_columns_are_found<lwfm::wide::Scan>(row, v);
#if LWFM_X86
  const SimdLevel best = lwfm::supported_level();
  if (best >= SimdLevel::avx2) tight_columns_are_found<lwfm::avx2::Scan>(row, v);
  if (best >= SimdLevel::avx512) tight_columns_are_found<lwfm::avx512::Scan>(row, v);
#endif
}

}  // namespace

int main() {
  std::mt19937_64 engine(11);
  for (std::size_t columns = 33; columns <= 70; ++columns) {
    for (const unsigned one_in : {2u, 40u}) {
      every_width_finds_tight_columns<float>(columns, one_in, engine);
      every_width_finds_tight_columns<double>(columns, one_in, engine);
    }
  }
  for (std::int64_t columns = 1; columns <= 70; ++columns) {
    for (const std::int64_t rows : {columns, (columns + 1) / 2, std::int64_t{1}}) {
      for (int round = 0; round < 6; ++round) {
        levels_agree<float>(rows, columns, engine);
        levels_agree<double>(rows, columns, engine);
      }
    }
  }
  std::printf("this processor: %s\n", lwfm::name_of(lwfm::supported_level()));
  return check::result();
}
