// Pairs processed in groups, one a lane: equal to single pairs, independent of their neighbors, and
// bit for bit the same on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/matching/embedding_weights_group.h"

namespace {

using lwfm::kGroup;
using lwfm::SimdLevel;

// `pairs` blocks with the gradients of their weights, and what comes out.
template <class T>
struct Problem {
  std::int64_t rows, columns;
  int pairs;
  std::vector<T> raw, row_scale, column_scale;
  std::vector<T> a, b;                             // written by forward, read as gradients too
  std::vector<T> raw_grad, row_grad, column_grad;  // written by backward

  Problem(std::int64_t n, std::int64_t m, int count, std::mt19937_64& engine)
      : rows(n), columns(m), pairs(count) {
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.5, 2.0);
    const auto size = [&](std::int64_t each) { return static_cast<std::size_t>(each * count); };
    for (auto* part : {&raw, &raw_grad}) part->resize(size(n * m));
    for (auto* part : {&row_scale, &a, &row_grad}) part->resize(size(n));
    for (auto* part : {&column_scale, &b, &column_grad}) part->resize(size(m));
    for (T& x : raw) x = static_cast<T>(normal(engine));
    for (T& x : row_scale) x = static_cast<T>(uniform(engine));
    for (T& x : column_scale) x = static_cast<T>(uniform(engine));
  }

  lwfm::ScaledBlock<T> block(int p) const {
    return {{raw.data() + p * rows * columns, rows, columns, columns, 1},
            {row_scale.data() + p * rows, 1},
            {column_scale.data() + p * columns, 1}};
  }
  lwfm::WeightGradients<T> from(int p) const {
    return {{a.data() + p * rows, 1}, {b.data() + p * columns, 1}};
  }
  lwfm::BlockGradient<T> to(int p) {
    return {{raw_grad.data() + p * rows * columns, rows, columns, columns, 1},
            {row_grad.data() + p * rows, 1},
            {column_grad.data() + p * columns, 1}};
  }

  void one_by_one() {
    lwfm::EmbeddingWeights<T> workspace;
    for (int p = 0; p < pairs; ++p) {
      lwfm::weigh(workspace, block(p), T{2}, a.data() + p * rows, b.data() + p * columns);
      lwfm::weigh_backward(workspace, block(p), T{2}, from(p), to(p));
    }
  }

  void in_groups(SimdLevel level = lwfm::simd_level()) {
    lwfm::GroupWeights<T> workspace;
    for (int p = 0; p < pairs; p += kGroup<T>) {
      lwfm::PairGroup<T> group;
      lwfm::WeightGradients<T> grads[kGroup<T>];
      lwfm::BlockGradient<T> results[kGroup<T>];
      group.count = std::min(pairs - p, kGroup<T>);
      for (int lane = 0; lane < group.count; ++lane) {
        group.blocks[lane] = block(p + lane);
        grads[lane] = from(p + lane);
        results[lane] = to(p + lane);
      }
      lwfm::weigh_group(workspace, group, T{2}, a.data() + p * rows, b.data() + p * columns, level);
      lwfm::weigh_group_backward(workspace, group, T{2}, grads, results, level);
    }
  }

  std::vector<const std::vector<T>*> results() const {
    return {&a, &b, &raw_grad, &row_grad, &column_grad};
  }
};

template <class T>
bool differ_by_rounding(const Problem<T>& one, const Problem<T>& other) {
  // Two entries standardize to the same two values whatever they are: their gradient is rounding.
  const double tolerance = sizeof(T) == 4 ? 2e-3 : 1e-11;
  for (std::size_t part = 0; part < one.results().size(); ++part) {
    const auto &x = *one.results()[part], &y = *other.results()[part];
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!(std::abs(x[i] - y[i]) <= tolerance * (1 + std::abs(y[i])))) return false;
    }
  }
  return true;
}

template <class T>
bool are_equal(const Problem<T>& one, const Problem<T>& other) {
  for (std::size_t part = 0; part < one.results().size(); ++part) {
    if (*one.results()[part] != *other.results()[part]) return false;
  }
  return true;
}

template <class T>
void groups_follow_single_pairs(std::int64_t n, std::int64_t m, std::mt19937_64& engine) {
  Problem<T> grouped(n, m, 2 * kGroup<T> + 3, engine);
  Problem<T> single = grouped, start = grouped;
  single.one_by_one();
  grouped.in_groups();
  CHECK(differ_by_rounding(grouped, single));
  for (int level = 0; level < static_cast<int>(lwfm::simd_level()); ++level) {
    Problem<T> lower = start;
    lower.in_groups(static_cast<SimdLevel>(level));
    CHECK(are_equal(grouped, lower));
  }
}

template <class T>
void neighbors_change_nothing(std::mt19937_64& engine) {
  Problem<T> many(5, 4, kGroup<T>, engine);
  Problem<T> alone = many;
  alone.pairs = 1;
  many.in_groups();
  alone.in_groups();
  CHECK(std::equal(alone.a.begin(), alone.a.begin() + 5, many.a.begin()));
  CHECK(std::equal(alone.raw_grad.begin(), alone.raw_grad.begin() + 20, many.raw_grad.begin()));
}

}  // namespace

int main() {
  std::mt19937_64 engine(7);
  for (const std::int64_t n : {1, 2, 9, 16}) {
    for (const std::int64_t m : {1, 3, 9, 20}) {
      groups_follow_single_pairs<float>(n, m, engine);
      groups_follow_single_pairs<double>(n, m, engine);
    }
  }
  neighbors_change_nothing<float>(engine);
  neighbors_change_nothing<double>(engine);
  return check::result();
}
