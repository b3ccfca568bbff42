// The arithmetic on one block: against sums written out, against differences of its own values, and
// bit for bit the same on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/matching/embedding_weights.h"
#include "core/matching/feature_matching.h"

namespace {

using lwfm::SimdLevel;

template <class T>
struct Problem {
  std::int64_t rows, columns;
  std::vector<T> raw, row_scale, column_scale;

  Problem(std::int64_t n, std::int64_t m, std::mt19937_64& engine)
      : rows(n), columns(m), raw(size(n * m)), row_scale(size(n)), column_scale(size(m)) {
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.5, 2.0);
    for (T& x : raw) x = static_cast<T>(normal(engine));
    for (T& x : row_scale) x = static_cast<T>(uniform(engine));
    for (T& x : column_scale) x = static_cast<T>(uniform(engine));
  }

  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  lwfm::ScaledBlock<T> block() const {
    return {
        {raw.data(), rows, columns, columns, 1}, {row_scale.data(), 1}, {column_scale.data(), 1}};
  }

  lwfm::BlockGradient<T> views() {
    return {
        {raw.data(), rows, columns, columns, 1}, {row_scale.data(), 1}, {column_scale.data(), 1}};
  }

  std::vector<std::vector<T>*> parts() { return {&raw, &row_scale, &column_scale}; }
};

template <class T>
struct Weights {
  std::vector<T> a, b;

  bool operator==(const Weights& other) const { return a == other.a && b == other.b; }
};

template <class T>
Weights<T> weigh(lwfm::EmbeddingWeights<T>& workspace, const Problem<T>& problem, T temperature,
                 SimdLevel level = lwfm::simd_level()) {
  Weights<T> result{problem.row_scale, problem.column_scale};
  lwfm::weigh(workspace, problem.block(), temperature, result.a.data(), result.b.data(), level);
  return result;
}

// The softmax weights by their definition, in float64.
std::vector<double> softmax_of_standardized(std::vector<double> x, double temperature) {
  const auto n = static_cast<double>(x.size());
  double mean = 0.0, variance = 0.0, total = 0.0;
  for (const double entry : x) mean += entry / n;
  for (const double entry : x) variance += (entry - mean) * (entry - mean) / std::max(n - 1, 1.0);
  for (double& entry : x) {
    entry = std::exp((entry - mean) / std::sqrt(variance + 1e-5) / temperature);
    total += entry;
  }
  for (double& entry : x) entry /= total;
  return x;
}

template <class T>
void weights_follow_their_definition(std::int64_t n, std::int64_t m, std::mt19937_64& engine) {
  const Problem<T> problem(n, m, engine);
  const auto block = problem.block();
  std::vector<double> a(problem.row_scale.size()), b(problem.column_scale.size());
  for (std::int64_t j = 0; j < m; ++j) {
    std::vector<double> column;
    for (std::int64_t i = 0; i < n; ++i) column.push_back(block.at(i, j));
    column = softmax_of_standardized(column, 2.0);
    for (std::size_t i = 0; i < column.size(); ++i) a[i] += column[i];
  }
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<double> row;
    for (std::int64_t j = 0; j < m; ++j) row.push_back(block.at(i, j));
    row = softmax_of_standardized(row, 2.0);
    for (std::size_t j = 0; j < row.size(); ++j) b[j] += row[j];
  }
  lwfm::EmbeddingWeights<T> workspace;
  const auto result = weigh(workspace, problem, T{2});
  const double tolerance = 100 * std::numeric_limits<T>::epsilon() * static_cast<double>(n + m);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(std::abs(result.a[i] - a[i]) < tolerance);
  for (std::size_t j = 0; j < b.size(); ++j) CHECK(std::abs(result.b[j] - b[j]) < tolerance);
}

// The sum of everything that is written, each entry with its own weight.
double loss_of(const Weights<double>& weights) {
  double loss = 0.0, weight = 0.3;
  for (const auto* part : {&weights.a, &weights.b}) {
    for (const double entry : *part) loss += (weight = 1.7 - weight * weight) * entry;
  }
  return loss;
}

void gradient_is_that_of_differences(std::int64_t n, std::int64_t m, std::mt19937_64& engine) {
  Problem<double> problem(n, m, engine), gradient(n, m, engine);
  lwfm::EmbeddingWeights<double> workspace;
  Weights<double> ones = weigh(workspace, problem, 1.5);
  double weight = 0.3;
  for (auto* part : {&ones.a, &ones.b}) {
    for (double& entry : *part) entry = weight = 1.7 - weight * weight;
  }
  lwfm::weigh_backward<double>(workspace, problem.block(), 1.5,
                               {{ones.a.data(), 1}, {ones.b.data(), 1}}, gradient.views());
  for (std::size_t part = 0; part < 3; ++part) {
    auto& values = *problem.parts()[part];
    for (std::size_t k = 0; k < values.size(); ++k) {
      const double value = values[k], step = 1e-5;
      values[k] = value + step;
      double slope = loss_of(weigh(workspace, problem, 1.5));
      values[k] = value - step;
      slope = (slope - loss_of(weigh(workspace, problem, 1.5))) / (2 * step);
      values[k] = value;
      CHECK(std::abs(slope - (*gradient.parts()[part])[k]) < 1e-6 * (1 + std::abs(slope)));
    }
  }
}

template <class T>
void levels_agree(std::int64_t n, std::int64_t m, std::mt19937_64& engine) {
  const Problem<T> problem(n, m, engine);
  lwfm::EmbeddingWeights<T> workspace;
  const auto portable = weigh(workspace, problem, T{5}, SimdLevel::portable);
  CHECK(weigh(workspace, problem, T{5}) == portable);
}

// A block with a NaN leaves nothing behind for the next one.
template <class T>
void blocks_are_independent(std::mt19937_64& engine) {
  const Problem<T> problem(5, 5, engine);
  Problem<T> poisoned = problem, gradient = problem;
  for (auto* part : poisoned.parts()) {
    std::fill(part->begin(), part->end(), std::numeric_limits<T>::quiet_NaN());
  }
  lwfm::EmbeddingWeights<T> workspace;
  const auto expected = weigh(workspace, problem, T{5});
  weigh(workspace, poisoned, T{5});
  lwfm::weigh_backward<T>(workspace, poisoned.block(), T{5},
                          {{poisoned.row_scale.data(), 1}, {poisoned.column_scale.data(), 1}},
                          gradient.views());
  CHECK(weigh(workspace, problem, T{5}) == expected);
}

void exponential_is_accurate() {
  for (int k = 0; k <= 8700; ++k) {
    const double x = -0.01 * k;
    lwfm::Lanes<float> single = lwfm::Lanes<float>{} + static_cast<float>(x);
    lwfm::Lanes<double> twice = lwfm::Lanes<double>{} + x;
    const double expected = std::exp(static_cast<double>(static_cast<float>(x)));
    lwfm::exponentiate<float>(single);
    lwfm::exponentiate<double>(twice);
    CHECK(std::abs(single[3] - expected) <= 2e-7 * expected);
    CHECK(std::abs(twice[3] - std::exp(x)) <= 4e-16 * std::exp(x));
  }
}

// A 2 x 3 block whose best assignment is known, and cosines of its matched positions.
void similarity_is_the_mean_of_the_largest() {
  std::mt19937_64 engine(0);
  Problem<double> cosines(2, 3, engine);
  std::fill(cosines.row_scale.begin(), cosines.row_scale.end(), 2.0);
  std::fill(cosines.column_scale.begin(), cosines.column_scale.end(), 0.25);
  cosines.raw = {0.0, 2.0, 1.8, 0.0, 2.0, 0.1};
  lwfm::MatchingWorkspace<double> workspace;
  std::vector<std::int64_t> assignment(2);
  CHECK(lwfm::match_positions(workspace, cosines.block(), assignment.data()) == lwfm::Status::ok);
  CHECK(assignment == std::vector<std::int64_t>{2, 1});
  const std::vector<double> matched{0.2, 0.3};
  const auto similarity = [&](std::int64_t top_k) {
    lwfm::select_matches(workspace, matched.data(), assignment.data(), 2, top_k);
    return lwfm::mean_of_selected(workspace, top_k);
  };
  CHECK(std::abs(similarity(1) - 0.3) < 1e-15);
  CHECK(std::abs(similarity(2) - 0.25) < 1e-15);
  cosines.raw[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK(lwfm::match_positions(workspace, cosines.block(), assignment.data()) ==
        lwfm::Status::invalid_entry);
}

}  // namespace

int main() {
  std::mt19937_64 engine(5);
  for (const std::int64_t n : {1, 2, 3, 8, 9, 25}) {
    for (const std::int64_t m : {1, 2, 4, 7, 9, 16, 33}) {
      weights_follow_their_definition<float>(n, m, engine);
      weights_follow_their_definition<double>(n, m, engine);
      levels_agree<float>(n, m, engine);
      levels_agree<double>(n, m, engine);
      if (n > 2 && m > 2 && n * m < 100) gradient_is_that_of_differences(n, m, engine);
    }
  }
  blocks_are_independent<float>(engine);
  blocks_are_independent<double>(engine);
  exponential_is_accurate();
  similarity_is_the_mean_of_the_largest();
  return check::result();
}
