// The k best assignments against all assignments, sorted, on every instruction set.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "core/ranking.h"
#include "exhaustive.h"

namespace {

using exhaustive::Columns;
using lwfm::Best;
using lwfm::Status;
using lwfm::Workspace;

struct Ranked {
  double total;
  Columns columns;
};

template <class T>
std::vector<Ranked> sorted_assignments(const problems::Problem<T>& problem, bool maximize) {
  std::vector<Ranked> all;
  exhaustive::for_each_assignment<T>(problem.cost(),
                                     [&](const Columns& columns, const std::vector<double>& costs) {
                                       double total = 0.0;
                                       for (const double cost : costs) total += cost;
                                       all.push_back({total, columns});
                                     });
  std::sort(all.begin(), all.end(), [&](const Ranked& a, const Ranked& b) {
    if (a.total != b.total) return maximize ? a.total > b.total : a.total < b.total;
    return a.columns < b.columns;
  });
  return all;
}

Columns columns_of(const Best& best, std::size_t k, std::int64_t rows) {
  const auto first = best.columns.begin() + static_cast<std::ptrdiff_t>(k) * rows;
  return Columns(first, first + rows);
}

template <class T>
void equals_all(const problems::Problem<T>& problem, bool maximize, std::int64_t k) {
  const std::vector<Ranked> all = sorted_assignments(problem, maximize);
  const std::size_t count = std::min(all.size(), static_cast<std::size_t>(k));
  exhaustive::for_each_level([&](lwfm::SimdLevel level) {
    Workspace workspace;
    Best best;
    const Status status =
        lwfm::find_best(problem.cost(), k, maximize, nullptr, workspace, best, level);
    CHECK(status == (all.empty() ? Status::infeasible : Status::ok));
    CHECK(best.totals.size() == count);
    for (std::size_t q = 0; q < std::min(count, best.totals.size()); ++q) {
      CHECK(best.totals[q] == all[q].total);
      const Columns columns = columns_of(best, q, problem.rows);
      // Of the totals that equal the last one some may be left out; the others are all there.
      const bool is_whole = count == all.size() || all[q].total != all[count].total;
      CHECK(!is_whole || columns == all[q].columns);
      CHECK(q == 0 || columns != columns_of(best, q - 1, problem.rows));
    }
  });
}

void small_problems_equal_all_assignments() {
  std::mt19937_64 engine(1);
  for (int round = 0; round < 400; ++round) {
    const auto rows = static_cast<std::int64_t>(1 + round % 5);
    const auto columns = static_cast<std::int64_t>(1 + round / 5 % 5);
    const bool maximize = round % 2 == 1;
    const auto k = static_cast<std::int64_t>(1 + engine() % 130);
    equals_all(exhaustive::random_problem<double>(engine, rows, columns, 0, maximize, 0), maximize,
               k);
    equals_all(exhaustive::random_problem<float>(engine, rows, columns, 4, maximize, 0.3), maximize,
               k);
    equals_all(exhaustive::random_problem<double>(engine, rows, columns, 3, maximize, 0.5),
               maximize, k);
    equals_all(exhaustive::random_problem<std::int64_t>(engine, rows, columns, 5, maximize, 0),
               maximize, k);
  }
}

void empty_problems_have_one_assignment() {
  for (const auto& [rows, columns] : {std::pair{0, 0}, {0, 3}, {3, 0}}) {
    const auto problem = problems::make<double>(rows, columns, [] { return 0.0; });
    equals_all(problem, false, 5);
  }
}

// Larger ones: non-decreasing totals of different assignments, the same on every instruction set.
template <class T>
void is_in_order(std::int64_t rows, std::int64_t columns, std::uint64_t values) {
  std::mt19937_64 engine(static_cast<std::uint64_t>(rows + columns));
  const auto problem = exhaustive::random_problem<T>(engine, rows, columns, values, false, 0);
  constexpr std::int64_t kCount = 60;
  Best first;
  exhaustive::for_each_level([&](lwfm::SimdLevel level) {
    Workspace workspace;
    Best best;
    CHECK(lwfm::find_best(problem.cost(), kCount, false, nullptr, workspace, best, level) ==
          Status::ok);
    CHECK(best.totals.size() == kCount);
    CHECK(std::is_sorted(best.totals.begin(), best.totals.end()));
    std::vector<Columns> all;
    for (std::size_t q = 0; q < best.totals.size(); ++q) {
      all.push_back(columns_of(best, q, rows));
      CHECK(problems::is_complete(all.back(), columns));
    }
    std::sort(all.begin(), all.end());
    CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
    if (first.totals.empty()) first = best;
    CHECK(best.columns == first.columns && best.totals == first.totals);
  });
}

void integers_beyond_float64_are_ordered_exactly() {
  constexpr std::int64_t kLarge = std::int64_t{1} << 60;
  const problems::Problem<std::int64_t> problem{
      {kLarge, kLarge + 1, kLarge + 9, kLarge, kLarge + 3, kLarge + 9, kLarge, kLarge, kLarge},
      3,
      3};
  Workspace workspace;
  Best best;
  CHECK(lwfm::find_best(problem.cost(), 6, false, nullptr, workspace, best) == Status::ok);
  CHECK((columns_of(best, 0, 3) == Columns{1, 0, 2}));  // 1 over the least possible
  CHECK((columns_of(best, 1, 3) == Columns{0, 1, 2}));  // 3
  CHECK((columns_of(best, 2, 3) == Columns{0, 2, 1}));  // 9, as three others in order of columns
}

bool request() { return true; }

void an_interrupted_ranking_continues() {
  std::mt19937_64 engine(7);
  const auto problem = exhaustive::random_problem<double>(engine, 300, 300, 0, false, 0);
  Workspace undisturbed, workspace;
  const auto expected = lwfm::rank(problem.cost(), false, undisturbed);
  const auto ranking = lwfm::rank(problem.cost(), false, workspace);
  Columns wanted(300), columns(300);
  int interruptions = 0;
  for (int step = 0; step < 30; ++step) {
    CHECK(expected->next(wanted.data(), nullptr) == Status::ok);
    Status status = Status::interrupted;
    for (int tries = 0; status == Status::interrupted; ++tries) {
      lwfm::Interruption interruption(request, tries < 3
                                                   ? lwfm::Interruption::Clock::now()
                                                   : lwfm::Interruption::Clock::time_point::max());
      status = ranking->next(columns.data(), tries < 3 ? &interruption : nullptr);
      interruptions += status == Status::interrupted ? 1 : 0;
    }
    CHECK(status == Status::ok);
    CHECK(columns == wanted);
    double total = 0.0, bound = ranking->bound();
    for (std::int64_t i = 0; i < 300; ++i)
      total += problem.cost().at(i, columns[static_cast<std::size_t>(i)]);
    CHECK(bound <= total * (1 + 1e-12));
  }
  CHECK(interruptions > 0);
}

void invalid_entries_are_found() {
  auto problem = problems::make<double>(4, 4, [] { return 1.0; });
  problem.entries[5] = -lwfm::kInfinity;
  Workspace workspace;
  Best best;
  CHECK(lwfm::find_best(problem.cost(), 2, false, nullptr, workspace, best) ==
        Status::invalid_entry);
}

}  // namespace

int main() {
  small_problems_equal_all_assignments();
  empty_problems_have_one_assignment();
  is_in_order<float>(40, 40, 0);
  is_in_order<double>(30, 70, 0);
  is_in_order<std::int64_t>(70, 33, 4);
  is_in_order<double>(60, 60, 2);
  integers_beyond_float64_are_ordered_exactly();
  an_interrupted_ranking_continues();
  invalid_entries_are_found();
  return check::result();
}
