// A call ends early when its caller asks: in every solver, on one thread or several, and the
// workspace and the pool serve the next call.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "check.h"
#include "core/assignment.h"
#include "core/interruption.h"
#include "core/sparse.h"
#include "core/thread_pool.h"
#include "problems.h"

namespace {

using lwfm::Interruption;
using lwfm::Options;
using lwfm::Status;
using lwfm::Workspace;

std::atomic<int> polls{0};

bool refuse() {
  ++polls;
  return false;
}

bool request() {
  ++polls;
  return true;
}

// Slow for augmenting paths: every search visits many rows.
template <class T>
problems::Problem<T> product(std::int64_t rows, std::int64_t columns) {
  std::int64_t k = 0;
  return problems::make<T>(rows, columns, [&] {
    const std::int64_t i = k / columns + 1, j = k % columns + 1;
    ++k;
    return static_cast<T>(i * j);
  });
}

template <class T>
void ends_early_and_solves_the_next(std::int64_t n, const Options& wanted) {
  const auto large = product<T>(n, n), small = product<T>(40, 40);
  Workspace workspace;
  Interruption interruption(request);
  Options options = wanted;
  options.interruption = &interruption;
  CHECK(problems::solve(large.cost(), options, workspace).status == Status::interrupted);
  CHECK(interruption.requested());
  const auto next = problems::solve(small.cost(), wanted, workspace);
  Workspace fresh;
  const auto expected = problems::solve(small.cost(), wanted, fresh);
  CHECK(next.status == Status::ok);
  CHECK(next.assignment == expected.assignment);
}

void every_solver_ends_early() {
  Options options;
  ends_early_and_solves_the_next<float>(2000, options);
  ends_early_and_solves_the_next<std::int64_t>(2000, options);
  options.cost_limit = 1e6;
  ends_early_and_solves_the_next<double>(1500, options);
  Options shared;
  shared.threads = 2;
  ends_early_and_solves_the_next<float>(2 * lwfm::kTeamColumns, shared);
}

void the_sparse_solver_ends_early() {
  constexpr std::int64_t kSize = 1500;
  const auto dense = product<double>(kSize, kSize);
  std::vector<std::int64_t> start(kSize + 1), column(kSize * kSize), assignment(kSize);
  for (std::int64_t i = 0; i <= kSize; ++i) start[static_cast<std::size_t>(i)] = i * kSize;
  for (std::size_t k = 0; k < column.size(); ++k) column[k] = static_cast<std::int64_t>(k) % kSize;
  const lwfm::SparseCost cost{kSize, kSize, start.data(), column.data(), dense.entries.data()};
  Interruption interruption(request);
  lwfm::SparseSolver solver(cost, &interruption);
  CHECK(solver.solve(assignment.data()) == Status::interrupted);
}

void a_refused_request_changes_nothing() {
  const auto problem = product<float>(700, 700);
  Workspace workspace;
  Interruption interruption(refuse);
  Options options;
  options.interruption = &interruption;
  const auto solution = problems::solve(problem.cost(), options, workspace);
  CHECK(solution.status == Status::ok);
  CHECK(solution.assignment == problems::solve(problem.cost(), Options{}, workspace).assignment);
}

void only_the_calling_thread_polls() {
  polls = 0;
  Interruption interruption(request);
  std::thread([&] {
    for (int k = 0; k < 3; ++k) {
      std::this_thread::sleep_for(Interruption::kPeriod);
      CHECK(!interruption.update());
    }
  }).join();
  CHECK(polls == 0);
  while (!interruption.update()) std::this_thread::yield();
  CHECK(polls == 1);
  std::thread([&] { CHECK(interruption.update()); }).join();
  CHECK(polls == 1);
}

void a_deadline_ends_a_call_without_a_poll() {
  Interruption interruption(nullptr, Interruption::Clock::now() + Interruption::kPeriod / 2);
  CHECK(interruption.polls());
  CHECK(!interruption.update());
  CHECK(!interruption.timed_out());
  std::this_thread::sleep_for(Interruption::kPeriod);
  CHECK(interruption.update() && interruption.requested() && interruption.timed_out());
  Interruption by_request(request);
  while (!by_request.update()) std::this_thread::yield();
  CHECK(!by_request.timed_out());
}

// Whatever was reached, the bound is below the optimum, and some time before the end there is one.
template <class T>
void an_interrupted_solver_knows_a_bound(std::int64_t rows, std::int64_t columns,
                                         const Options& wanted) {
  const auto problem = product<T>(rows, columns);
  const double sign = wanted.maximize ? -1.0 : 1.0;
  Workspace workspace;
  const auto best = problems::solve(problem.cost(), wanted, workspace);
  const auto unmatched = std::count(best.assignment.begin(), best.assignment.end(), -1);
  const double optimum = !wanted.limited()
                             ? best.total
                             : best.total + 0.5 * wanted.cost_limit *
                                                static_cast<double>(2 * unmatched + columns - rows);
  bool known = false;
  for (std::chrono::microseconds time(200);; time *= 2) {
    Interruption interruption(nullptr, Interruption::Clock::now() + time);
    double bound = 0.0;
    Options options = wanted;
    options.interruption = &interruption;
    options.bound = &bound;
    const Status status = problems::solve(problem.cost(), options, workspace).status;
    if (status == Status::ok) break;
    CHECK(status == Status::interrupted && interruption.timed_out());
    CHECK(sign * bound <= sign * optimum + 1e-9 * std::fabs(optimum));
    known = known || std::fabs(bound) < lwfm::kInfinity;
  }
  CHECK(known);
}

void interrupted_solvers_know_a_bound() {
  Options options;
  an_interrupted_solver_knows_a_bound<float>(400, 400, options);
  an_interrupted_solver_knows_a_bound<std::int64_t>(350, 400, options);
  options.maximize = true;
  an_interrupted_solver_knows_a_bound<double>(400, 350, options);
  Options limited;
  limited.cost_limit = 1e5;
  an_interrupted_solver_knows_a_bound<double>(350, 400, limited);
}

// The caller's piece is done at once; another thread's goes on until it is told.
void waiting_for_other_threads_can_be_ended() {
  const std::thread::id caller = std::this_thread::get_id();
  for (int round = 0; round < 3; ++round) {
    Interruption interruption(request);
    lwfm::share_work(
        64, 1, 2,
        [&](std::int64_t, std::int64_t) {
          if (std::this_thread::get_id() == caller) return;
          while (!interruption.requested()) std::this_thread::yield();
        },
        &interruption);
  }
  std::atomic<int> visits{0};
  lwfm::share_work(100, 1, 2, [&](std::int64_t, std::int64_t) { ++visits; });
  CHECK(visits == 100);
}

}  // namespace

int main() {
  every_solver_ends_early();
  the_sparse_solver_ends_early();
  a_refused_request_changes_nothing();
  only_the_calling_thread_polls();
  a_deadline_ends_a_call_without_a_poll();
  interrupted_solvers_know_a_bound();
  waiting_for_other_threads_can_be_ended();
  return check::result();
}
