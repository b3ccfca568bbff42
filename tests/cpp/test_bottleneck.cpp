// Bottleneck assignments against all assignments, on every instruction set.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "core/bottleneck.h"
#include "exhaustive.h"

namespace {

using exhaustive::Columns;
using lwfm::BottleneckOptions;
using lwfm::Status;
using lwfm::Workspace;

// The costs of an assignment from the worst to the best.
std::vector<double> sorted_costs(std::vector<double> costs, bool maximize) {
  if (maximize) std::sort(costs.begin(), costs.end());
  if (!maximize) std::sort(costs.rbegin(), costs.rend());
  return costs;
}

bool is_better(const std::vector<double>& a, const std::vector<double>& b, bool maximize) {
  return maximize ? b < a : a < b;
}

template <class T>
std::vector<double> chosen_costs(const problems::Problem<T>& problem, const Columns& columns) {
  std::vector<double> costs;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    const std::int64_t j = columns[static_cast<std::size_t>(i)];
    if (j >= 0) costs.push_back(static_cast<double>(problem.cost().at(i, j)));
  }
  return costs;
}

template <class T>
void equals_the_best_of_all(const problems::Problem<T>& problem, bool maximize) {
  std::vector<double> best;
  bool any = false;
  exhaustive::for_each_assignment<T>(problem.cost(),
                                     [&](const Columns&, const std::vector<double>& costs) {
                                       const auto sorted = sorted_costs(costs, maximize);
                                       if (!any || is_better(sorted, best, maximize)) best = sorted;
                                       any = true;
                                     });
  exhaustive::for_each_level([&](lwfm::SimdLevel level) {
    for (const bool lexicographic : {false, true}) {
      Workspace workspace;
      Columns columns(static_cast<std::size_t>(problem.rows));
      double bound = 0.0;
      const Status status = lwfm::solve_bottleneck(
          problem.cost(), BottleneckOptions{maximize, lexicographic, nullptr}, workspace,
          columns.data(), bound, level);
      CHECK(status == (any ? Status::ok : Status::infeasible));
      if (!any) continue;
      CHECK(problems::is_complete(columns, problem.columns));
      const auto sorted = sorted_costs(chosen_costs(problem, columns), maximize);
      if (!best.empty()) CHECK(sorted.front() == best.front());
      if (lexicographic) CHECK(sorted == best);
      if (!best.empty())
        CHECK(lwfm::largest_cost(problem.cost(), maximize, columns.data()) == best.front());
    }
  });
}

void small_problems_equal_the_best_of_all() {
  std::mt19937_64 engine(1);
  for (int round = 0; round < 400; ++round) {
    const auto rows = static_cast<std::int64_t>(1 + round % 5);
    const auto columns = static_cast<std::int64_t>(1 + round / 5 % 5);
    const bool maximize = round % 2 == 1;
    equals_the_best_of_all(
        exhaustive::random_problem<double>(engine, rows, columns, 0, maximize, 0), maximize);
    equals_the_best_of_all(
        exhaustive::random_problem<float>(engine, rows, columns, 4, maximize, 0.3), maximize);
    equals_the_best_of_all(
        exhaustive::random_problem<double>(engine, rows, columns, 3, maximize, 0.5), maximize);
    equals_the_best_of_all(
        exhaustive::random_problem<std::int64_t>(engine, rows, columns, 9, maximize, 0), maximize);
  }
}

void empty_problems_have_an_empty_answer() {
  for (const auto& [rows, columns] : {std::pair{0, 0}, {0, 3}, {3, 0}}) {
    equals_the_best_of_all(problems::make<double>(rows, columns, [] { return 0.0; }), false);
  }
}

void constants_give_the_identity() {
  for (const std::int64_t size : {3, 40}) {
    const auto problem = problems::make<float>(size, size, [] { return 0.5F; });
    Workspace workspace;
    Columns columns(static_cast<std::size_t>(size));
    double bound = 0.0;
    CHECK(lwfm::solve_bottleneck(problem.cost(), {}, workspace, columns.data(), bound) ==
          Status::ok);
    for (std::int64_t i = 0; i < size; ++i) CHECK(columns[static_cast<std::size_t>(i)] == i);
  }
}

// Costs that a solver which adds them would have to scale.
void any_magnitude_is_compared() {
  for (const double unit : {1e-310, 1e308}) {
    const problems::Problem<double> problem{{unit, -unit, 1.5 * unit, unit}, 2, 2};
    equals_the_best_of_all(problem, false);
    equals_the_best_of_all(problem, true);
  }
}

template <class T>
void larger_problems_agree_on_every_level(std::int64_t rows, std::int64_t columns,
                                          std::uint64_t values) {
  std::mt19937_64 engine(static_cast<std::uint64_t>(rows));
  const auto problem = exhaustive::random_problem<T>(engine, rows, columns, values, false, 0);
  Columns first;
  exhaustive::for_each_level([&](lwfm::SimdLevel level) {
    Workspace workspace;
    Columns plain(static_cast<std::size_t>(rows)), refined(plain);
    double bound = 0.0;
    CHECK(lwfm::solve_bottleneck(problem.cost(), {}, workspace, plain.data(), bound, level) ==
          Status::ok);
    CHECK(lwfm::solve_bottleneck(problem.cost(), {false, true, nullptr}, workspace, refined.data(),
                                 bound, level) == Status::ok);
    const auto costs = sorted_costs(chosen_costs(problem, plain), false);
    const auto refined_costs = sorted_costs(chosen_costs(problem, refined), false);
    CHECK(costs.front() == refined_costs.front());
    CHECK(!is_better(costs, refined_costs, false));
    plain.insert(plain.end(), refined.begin(), refined.end());
    if (first.empty()) first = plain;
    CHECK(plain == first);
  });
}

bool request() { return true; }

void an_interrupted_search_knows_a_bound() {
  std::mt19937_64 engine(3);
  const auto problem = exhaustive::random_problem<double>(engine, 1500, 1500, 0, false, 0);
  Workspace workspace;
  Columns columns(1500);
  double bound = 0.0, known = 0.0;
  CHECK(lwfm::solve_bottleneck(problem.cost(), {}, workspace, columns.data(), bound) == Status::ok);
  const double largest = lwfm::largest_cost(problem.cost(), false, columns.data());
  lwfm::Interruption interruption(request, lwfm::Interruption::Clock::now());
  CHECK(lwfm::solve_bottleneck(problem.cost(), {false, false, &interruption}, workspace,
                               columns.data(), known) == Status::interrupted);
  CHECK(interruption.timed_out());
  CHECK(known <= largest);
}

}  // namespace

int main() {
  small_problems_equal_the_best_of_all();
  empty_problems_have_an_empty_answer();
  constants_give_the_identity();
  any_magnitude_is_compared();
  larger_problems_agree_on_every_level<float>(50, 50, 0);
  larger_problems_agree_on_every_level<double>(30, 70, 20);
  larger_problems_agree_on_every_level<std::int64_t>(60, 33, 5);
  an_interrupted_search_knows_a_bound();
  return check::result();
}
