// The sparse solver against the dense one on the same problems.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/assignment.h"
#include "core/sparse.h"
#include "problems.h"

namespace {

struct Rows {
  std::vector<std::int64_t> start{0}, column;
  std::vector<double> value;
};

Rows compress(const problems::Problem<double>& dense) {
  Rows rows;
  for (std::int64_t i = 0; i < dense.rows; ++i) {
    for (std::int64_t j = 0; j < dense.columns; ++j) {
      if (std::isinf(dense.cost().at(i, j))) continue;
      rows.column.push_back(j);
      rows.value.push_back(dense.cost().at(i, j));
    }
    rows.start.push_back(static_cast<std::int64_t>(rows.column.size()));
  }
  return rows;
}

void agrees_with_dense(std::int64_t rows, std::int64_t columns, std::mt19937_64& engine) {
  const std::uint64_t range = std::uint64_t{1} << (1 + engine() % 30);
  const std::uint64_t forbidden = engine() % 10;
  const auto dense = problems::make<double>(rows, columns, [&] {
    const double entry = static_cast<double>(engine() % range);
    return engine() % 10 < forbidden ? lwfm::kInfinity : entry;
  });
  lwfm::Workspace workspace;
  const auto expected = problems::solve(dense.cost(), false, workspace);
  const Rows sparse = compress(dense);
  std::vector<std::int64_t> assignment(static_cast<std::size_t>(rows));
  const lwfm::SparseCost cost{rows, columns, sparse.start.data(), sparse.column.data(),
                              sparse.value.data()};
  const lwfm::Status status = lwfm::SparseSolver(cost).solve(assignment.data());
  CHECK(status == expected.status);
  if (status != lwfm::Status::ok || expected.status != status) return;
  CHECK(problems::is_complete(assignment, columns));
  CHECK(lwfm::total_cost(dense.cost(), assignment.data()) == expected.total);
}

}  // namespace

int main() {
  std::mt19937_64 engine(5);
  for (std::int64_t columns = 1; columns <= 45; ++columns) {
    for (const std::int64_t rows : {columns, (columns + 1) / 2, std::int64_t{1}}) {
      for (int round = 0; round < 20; ++round) agrees_with_dense(rows, columns, engine);
    }
  }
  return check::result();
}
