// One problem on several threads: the same assignment and the same duals as on one, bit for bit.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "core/assignment.h"
#include "problems.h"

namespace {

using lwfm::DenseCost;
using lwfm::Status;
using lwfm::Workspace;
using problems::Problem;
using Scan = lwfm::portable::Scan;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Column reduction and, as a solver would, row reduction; or every row is left to the searches.
template <class T>
Status begin(DenseCost<T>& cost, Workspace& workspace, bool reduce) {
  workspace.reserve(cost.rows, cost.columns);
  const Status status = lwfm::reduce_columns<Scan>(cost, workspace, nullptr);
  lwfm::list_all_rows(cost, workspace);
  if (status == Status::ok && reduce) lwfm::reduce_augmenting_rows<Scan>(cost, workspace);
  return status;
}

// Waits for every helper before the first row, and leaves the team after the first search if
// `held_up`.
template <class T>
Status search_in_team(const DenseCost<T>& cost, Workspace& workspace, std::int64_t size,
                      bool held_up) {
  lwfm::TeamTask<T> task(cost, workspace, size);
  lwfm::TeamMember<Scan, T> leader(task, workspace);
  if (held_up) leader.seat().waited = std::chrono::hours(1);
  std::vector<std::thread> helpers;
  for (std::int64_t k = 1; k < size; ++k) {
    helpers.emplace_back([&task] { lwfm::help_team<Scan>(task); });
  }
  while (!task.team.complete()) std::this_thread::yield();
  const Status status = lwfm::lead_team(task, leader);
  for (std::thread& helper : helpers) helper.join();
  return status;
}

template <class T>
void agrees_with_one_thread(const Problem<T>& problem, bool reduce) {
  DenseCost<T> cost{problem.entries.data(), problem.rows, problem.columns, problem.columns, 1.0};
  Workspace alone, shared;
  Status expected = begin(cost, alone, reduce);
  if (expected != Status::ok) return CHECK(!"a problem of these tests passes the reductions");
  expected = lwfm::augment_free_rows<Scan>(cost, alone);
  for (const std::int64_t size : {2, 3}) {
    for (const bool held_up : {false, true}) {
      begin(cost, shared, reduce);
      const Status status = search_in_team(cost, shared, size, held_up);
      CHECK(status == expected);
      if (status != Status::ok) continue;
      CHECK(shared.row_to_column == alone.row_to_column);
      CHECK(shared.column_to_row == alone.column_to_row);
      CHECK(std::equal(shared.v.begin(), shared.v.end(), alone.v.begin()));
    }
  }
}

template <class T>
void families_agree() {
  std::mt19937_64 engine(11);
  std::uniform_real_distribution<double> uniform;
  for (const auto& [rows, columns] :
       {std::pair<std::int64_t, std::int64_t>{420, 420}, {511, 511}, {100, 450}, {3, 400}}) {
    for (const bool reduce : {false, true}) {
      agrees_with_one_thread(problems::make<T>(rows, columns, [&] { return uniform(engine); }),
                             reduce);
    }
    // Ties within and between the members' columns, forbidden pairs.
    agrees_with_one_thread(
        problems::make<T>(rows, columns, [&] { return static_cast<double>(engine() % 10); }), true);
    agrees_with_one_thread(problems::make<T>(rows, columns, [] { return 1.0; }), false);
    agrees_with_one_thread(
        problems::make<T>(rows, columns,
                          [&] { return engine() % 2 == 0 ? kInfinite : uniform(engine); }),
        true);
  }
}

// Two rows that only one column could take, and a third that may take any.
void infeasible_everywhere() {
  auto problem = problems::make<float>(420, 420, [] { return 0.5F; });
  for (const std::int64_t row : {17, 400}) {
    for (std::int64_t j = 0; j < 420; ++j) {
      if (j != 333) problem.entries[static_cast<std::size_t>(row * 420 + j)] = kInfinite;
    }
  }
  agrees_with_one_thread(problem, true);
  agrees_with_one_thread(problem, false);
}

// Through the front door, at the size from which threads share a problem.
void solve_shares_large_problems() {
  const std::int64_t n = 2 * lwfm::kTeamColumns + 5;
  std::mt19937_64 engine(5);
  std::uniform_real_distribution<float> uniform;
  const auto problem = problems::make<float>(300, n, [&] { return uniform(engine); });
  Workspace workspace;
  const auto alone = problems::solve(problem.cost(), false, workspace);
  lwfm::Options options;
  options.threads = 2;
  const auto shared = problems::solve(problem.cost(), options, workspace);
  CHECK(shared.status == Status::ok);
  CHECK(shared.assignment == alone.assignment);
  CHECK(shared.u == alone.u && shared.v == alone.v);
  CHECK(problems::is_certified(problem.cost(), shared, false, 1e-5));
}

void small_problems_have_no_team() {
  CHECK(lwfm::team_size(2 * lwfm::kTeamColumns - 1, 16) == 1);
  CHECK(lwfm::team_size(2 * lwfm::kTeamColumns, 16) == 2);
  CHECK(lwfm::team_size(2 * lwfm::kTeamColumns, 1) == 1);
  CHECK(lwfm::team_size(100 * lwfm::kTeamColumns, 64) == lwfm::kTeamSize);
  CHECK(lwfm::team_size(0, 4) == 1);
}

}  // namespace

int main() {
  families_agree<float>();
  families_agree<double>();
  infeasible_everywhere();
  solve_shares_large_problems();
  small_problems_have_no_team();
  return check::result();
}
