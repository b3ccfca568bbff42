// The transport solver: every answer is proven by its duals, and is the same on every instruction
// set.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "core/transport.h"
#include "core/transport/error_message.h"
#include "transport_problems.h"

namespace {

using lwfm::SimdLevel;
using lwfm::TransportStatus;
using transport_problems::Answer;
using transport_problems::is_optimal;
using transport_problems::Problem;
using transport_problems::solve;

std::mt19937_64 engine(3);
double uniform() { return std::uniform_real_distribution<double>(0, 1)(engine); }
std::int64_t integer(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
}

using Number = std::function<double()>;

template <class T>
Problem<T> make(std::int64_t rows, std::int64_t columns, const Number& cost, const Number& weight) {
  Problem<T> problem{rows, columns, {}, {}, {}};
  double row_sum = 0.0, column_sum = 0.0;
  for (std::int64_t k = 0; k < rows * columns; ++k) problem.cost.push_back(static_cast<T>(cost()));
  for (std::int64_t i = 0; i < rows; ++i) {
    problem.row_weights.push_back(static_cast<T>(weight()));
    row_sum += problem.row_weights.back();
  }
  for (std::int64_t j = 0; j < columns; ++j) {
    problem.column_weights.push_back(static_cast<T>(weight()));
    column_sum += problem.column_weights.back();
  }
  if (row_sum <= 0.0 || column_sum <= 0.0) {
    std::fill(problem.row_weights.begin(), problem.row_weights.end(), T{0});
    std::fill(problem.column_weights.begin(), problem.column_weights.end(), T{0});
    return problem;
  }
  for (T& w : problem.column_weights) w = static_cast<T>(w * (row_sum / column_sum));
  return problem;
}

std::vector<SimdLevel> levels() {
  std::vector<SimdLevel> all;
  for (int level = 0; level <= static_cast<int>(lwfm::supported_level()); ++level) {
    all.push_back(static_cast<SimdLevel>(level));
  }
  return all;
}

template <class T>
bool same(const Answer<T>& a, const Answer<T>& b) {
  return a.status == b.status && a.plan == b.plan && a.u == b.u && a.v == b.v;
}

int solved = 0;

template <class T>
void check_problem(const Problem<T>& problem, const std::string& name) {
  const Answer<T> answer = solve(problem.view());
  const double unit = std::numeric_limits<T>::epsilon();
  check::report(answer.status == TransportStatus::ok && is_optimal(problem, answer, unit),
                name.c_str(), __FILE__, __LINE__);
  for (const SimdLevel level : levels()) {
    check::report(same(solve(problem.view(), level), answer),
                  (name + " on " + lwfm::name_of(level)).c_str(), __FILE__, __LINE__);
  }
  ++solved;
}

template <class T>
void check_families(std::int64_t rows, std::int64_t columns) {
  const std::vector<std::pair<const char*, Number>> costs{
      {"uniform", [] { return uniform(); }},
      {"of any sign", [] { return uniform() - 0.5; }},
      {"few integers", [] { return static_cast<double>(integer(0, 3)); }},
      {"constant", [] { return 2.5; }},
      {"tiny", [] { return 1e-30 * uniform(); }},
      {"with a large number", [] { return integer(0, 2) == 0 ? 1e9 : uniform(); }}};
  const std::vector<std::pair<const char*, Number>> weights{
      {"uniform", [] { return uniform(); }},
      {"equal", [] { return 1.0; }},
      {"some zero", [] { return integer(0, 2) == 0 ? 0.0 : uniform(); }},
      {"integers", [] { return static_cast<double>(integer(0, 4)); }},
      {"zero", [] { return 0.0; }},
      {"of all sizes", [] { return std::exp(-40.0 * uniform()); }},
      {"small", [] { return 1e-30 * uniform(); }}};
  for (const auto& [cost_name, cost] : costs) {
    for (const auto& [weight_name, weight] : weights) {
      check_problem(make<T>(rows, columns, cost, weight),
                    std::to_string(rows) + " x " + std::to_string(columns) + " costs " + cost_name +
                        ", weights " + weight_name);
    }
  }
}

void a_plan_is_the_known_one() {
  const Problem<double> problem{3, 2, {0, 1, 2, 1, 1, 3}, {1, 2, 1}, {1.5, 2.5}};
  CHECK(solve(problem.view()).plan == std::vector<double>{0.5, 0.5, 0, 2, 1, 0});
  CHECK(solve(problem.transposed()).plan == std::vector<double>{0.5, 0, 1, 0.5, 2, 0});
}

// Equal weights make an assignment: of the anti-diagonal here.
void equal_weights_make_an_assignment() {
  const std::int64_t n = 40;
  Problem<double> problem{n, n, {}, {}, {}};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) problem.cost.push_back(static_cast<double>(i * j));
  }
  problem.row_weights.assign(n, 1.0 / n);
  problem.column_weights.assign(n, 1.0 / n);
  const Answer<double> answer = solve(problem.view());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const double flow = answer.plan[static_cast<std::size_t>(i * n + j)];
      CHECK(i + j == n - 1 ? std::fabs(flow - 1.0 / n) < 1e-16 : flow == 0.0);
    }
  }
}

void huge_and_small_numbers() {
  for (const double scale : {1e-300, 1e300}) {
    Problem<double> problem = make<double>(6, 9, uniform, uniform);
    const std::vector<double> plan = solve(problem.view()).plan;
    Problem<double> costly = problem;
    for (double& cost : costly.cost) cost *= scale;
    CHECK(solve(costly.view()).plan == plan);
    for (double& weight : problem.row_weights) weight *= scale;
    for (double& weight : problem.column_weights) weight *= scale;
    CHECK(is_optimal(problem, solve(problem.view()), 1e-16));
  }
  const Problem<double> largest =
      make<double>(5, 5, [] { return 1.7e308 * (2 * uniform() - 1); }, uniform);
  CHECK(solve(largest.view()).status == TransportStatus::ok);
}

void bad_numbers_are_reported() {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const Problem<double> good{2, 2, {0, 1, 2, 1}, {1, 1}, {0.5, 1.5}};
  const auto message = [](const Problem<double>& problem) {
    const Answer<double> answer = solve(problem.view());
    CHECK(answer.status != TransportStatus::ok);
    return lwfm::describe_failure(answer.status, problem.view(), {4});
  };
  for (const double bad : {nan, infinity, -infinity}) {
    Problem<double> problem = good;
    problem.cost[2] = bad;
    CHECK(message(problem).find("cost[4, 1, 0] is ") == 0);
  }
  for (const double bad : {nan, infinity, -1.0}) {
    Problem<double> problem = good;
    problem.row_weights[1] = bad;
    CHECK(message(problem).find("row_weights[4, 1] is ") == 0);
    problem = good;
    problem.column_weights[0] = bad;
    CHECK(message(problem).find("column_weights[4, 0] is ") == 0);
  }
  Problem<double> problem = good;
  problem.column_weights[1] = 1.6;
  CHECK(message(problem) ==
        "row_weights[4] sums to 2 and column_weights[4] to 2.1: the sums must be equal, up to "
        "1e-05 of "
        "them");
  problem.column_weights[1] = 1.5 + 1e-6;  // scaled
  CHECK(is_optimal(problem, solve(problem.view()), 1e-16));
}

void empty_problems() {
  for (const auto& [rows, columns] : {std::pair{0, 3}, {3, 0}, {0, 0}}) {
    Problem<double> problem{rows,
                            columns,
                            {},
                            std::vector<double>(std::size_t(rows), 0.0),
                            std::vector<double>(std::size_t(columns), 0.0)};
    const Answer<double> answer = solve(problem.view());
    CHECK(answer.status == TransportStatus::ok && is_optimal(problem, answer, 0.0));
    if (rows + columns == 0) continue;
    (rows > 0 ? problem.row_weights : problem.column_weights)[0] = 1.0;
    CHECK(solve(problem.view()).status == TransportStatus::unequal_sums);
  }
}

void a_workspace_serves_problems_of_any_size() {
  lwfm::TransportWorkspace workspace;
  for (int round = 0; round < 40; ++round) {
    const Problem<float> problem = make<float>(integer(1, 30), integer(1, 30), uniform, uniform);
    Answer<float> answer = solve(problem.view()), again = answer;
    again.status = lwfm::solve_transport(problem.view(), nullptr, workspace,
                                         {again.plan.data(), again.u.data(), again.v.data()});
    CHECK(same(answer, again));
    CHECK(lwfm::solve_transport(problem.view(), nullptr, workspace,
                                {again.plan.data(), nullptr, nullptr}) == TransportStatus::ok);
    CHECK(again.plan == answer.plan);
  }
}

void ends_early() {
  const Problem<double> problem = make<double>(1500, 1500, uniform, uniform);
  std::vector<double> plan(problem.cost.size());
  lwfm::TransportWorkspace workspace;
  lwfm::Interruption interruption([] { return true; });
  CHECK(lwfm::solve_transport(problem.view(), &interruption, workspace,
                              {plan.data(), nullptr, nullptr}) == TransportStatus::interrupted);
}

void threads_share_nothing() {
  const Problem<double> problem = make<double>(20, 30, uniform, uniform);
  const Answer<double> expected = solve(problem.view());
  std::vector<std::thread> threads;
  std::vector<int> right(4, 0);
  for (int& result : right) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) result += same(solve(problem.view()), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int result : right) CHECK(result == 20);
}

}  // namespace

int main() {
  for (std::int64_t rows = 1; rows <= 4; ++rows) {
    for (std::int64_t columns = 1; columns <= 4; ++columns) {
      check_families<float>(rows, columns);
      check_families<double>(rows, columns);
    }
  }
  for (const auto& [rows, columns] :
       {std::pair{9, 9}, {7, 12}, {12, 7}, {25, 25}, {1, 70}, {70, 1}, {33, 64}, {60, 47}}) {
    check_families<float>(rows, columns);
    check_families<double>(rows, columns);
  }
  a_plan_is_the_known_one();
  equal_weights_make_an_assignment();
  huge_and_small_numbers();
  bad_numbers_are_reported();
  empty_problems();
  a_workspace_serves_problems_of_any_size();
  ends_early();
  threads_share_nothing();
  std::printf("%d problems solved\n", solved);
  return check::result();
}
