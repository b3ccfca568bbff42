// The fused kernel on all pairs of one layer, executed under emulation, against the arithmetic of
// the core on inner products summed in float64.
#include "core/matching/embedding_weights.h"
#include "core/matching/feature_matching.h"
#include "core/matching/norms.h"
#include "cuda/pair_kernels.h"
#include "cuda/tile_product.cuh"
#include "pair_problems.h"

namespace {

using tests::size;

// What the callers of kernels call a type of stored features.
template <class In>
struct PublicName {
  using Type = In;
};
template <>
struct PublicName<__half> {
  using Type = lwfm::Half;
};
template <>
struct PublicName<__nv_bfloat16> {
  using Type = lwfm::BFloat16;
};

// Images [count, positions, channels] in a buffer of exactly their size: channels adjacent, or
// positions, as the maps of a backbone are.
template <class In>
struct Features {
  int count, positions, channels;
  bool channels_adjacent;
  std::vector<In> data;

  Features(int n, int p, int c, bool adjacent, std::mt19937_64& engine)
      : count(n), positions(p), channels(c), channels_adjacent(adjacent), data(size(n * p * c)) {
    std::normal_distribution<float> normal;
    for (In& x : data) x = to_storage(normal(engine));
  }

  static In to_storage(float x) {
    if constexpr (std::is_same_v<In, __half>)
      return __float2half_rn(x);
    else if constexpr (std::is_same_v<In, __nv_bfloat16>)
      return __float2bfloat16_rn(x);
    else
      return static_cast<In>(x);
  }

  using Public = typename PublicName<In>::Type;

  lwfm::Images<Public> view() const {
    const std::int64_t image = std::int64_t{positions} * channels;
    const std::int64_t position = channels_adjacent ? channels : 1;
    return {reinterpret_cast<const Public*>(data.data()),
            count,
            positions,
            channels,
            image,
            position,
            channels_adjacent ? 1 : positions};
  }

  std::size_t index(int n, int p, int c) const {
    return size((std::int64_t{n} * positions + (channels_adjacent ? p : 0)) * channels +
                (channels_adjacent ? c : std::int64_t{c} * positions + p));
  }

  double at(int n, int p, int c) const { return lwfm::number_of(data[index(n, p, c)]); }

  double product(int n, int p, const Features& other, int m, int r) const {
    double sum = 0.0;
    for (int c = 0; c < channels; ++c) sum += at(n, p, c) * other.at(m, r, c);
    return sum;
  }
};

template <class T>
struct Results {
  std::vector<T> a, b, similarity;
  std::vector<std::int64_t> assignment;

  Results(const tests::Shape& shape, T value)
      : a(size(shape.pairs() * shape.rows), value),
        b(size(shape.pairs() * shape.columns), value),
        similarity(size(shape.pairs()), value),
        assignment(a.size(), -7) {}
};

// Products of one pair and both kinds of scales, in double.
struct Pair {
  int P, M;
  std::vector<double> raw, correlation[2], cosine[2];

  template <class In>
  Pair(const Features<In>& s, int n, const Features<In>& q, int m)
      : P(s.positions), M(q.positions) {
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < M; ++j) raw.push_back(s.product(n, i, q, m, j));
      add_scales(s.product(n, i, s, n, i), 0);
    }
    for (int j = 0; j < M; ++j) add_scales(q.product(m, j, q, m, j), 1);
  }

  void add_scales(double square, int side) {
    correlation[side].push_back(lwfm::correlation_scale(square));
    cosine[side].push_back(lwfm::inverse_norm(square));
  }

  lwfm::ScaledBlock<double> block(const std::vector<double> (&scales)[2]) const {
    return {{raw.data(), P, M, M, 1}, {scales[0].data(), 1}, {scales[1].data(), 1}};
  }
};

template <class In, class T>
struct Case {
  tests::Shape shape;
  int top_k;
  Features<In> support, query, support_compared, query_compared;
  bool embedded;

  Case(const tests::Shape& s, int C, int D, bool adjacent, int k, std::mt19937_64& engine)
      : shape(s),
        top_k(k),
        support(s.supports, s.rows, C, adjacent, engine),
        query(s.queries, s.columns, C, adjacent, engine),
        support_compared(s.supports, s.rows, D, !adjacent, engine),
        query_compared(s.queries, s.columns, D, adjacent, engine),
        embedded(D > 0) {}

  lwfm::CorrelationArguments<typename Features<In>::Public, T> arguments(Results<T>& to) const {
    lwfm::CorrelationArguments<typename Features<In>::Public, T> result{
        support.view(), query.view(), support_compared.view(), query_compared.view(), T{2}, top_k,
        to.a.data(),    to.b.data(),  to.similarity.data(),    to.assignment.data()};
    if (!embedded) result.support_compared.data = result.query_compared.data = nullptr;
    return result;
  }

  void check(const Results<T>& actual) const;
};

// An assignment that is complete, and whose total is the least, up to rounding.
template <class T>
void check_assignment(const lwfm::ScaledBlock<double>& cosines, const std::int64_t* given) {
  const std::int64_t P = cosines.raw.rows, M = cosines.raw.columns;
  lwfm::MatchingWorkspace<double> workspace;
  std::vector<std::int64_t> best(size(P));
  lwfm::match_positions(workspace, cosines, best.data());
  std::vector<int> taken(size(M), 0);
  for (std::int64_t i = 0; i < P; ++i) {
    CHECK(given[i] >= -1 && given[i] < M);
    if (given[i] >= 0) CHECK(++taken[size(given[i])] == 1);
  }
  CHECK(std::count(taken.begin(), taken.end(), 1) == std::min(P, M));
  const auto costs = workspace.cost_matrix(cosines.raw);
  CHECK(lwfm::total_cost(costs, given) - lwfm::total_cost(costs, best.data()) <
        40.0 * static_cast<double>(P) * std::numeric_limits<T>::epsilon());
}

template <class In, class T>
void Case<In, T>::check(const Results<T>& actual) const {
  const int P = shape.rows, M = shape.columns;
  Results<T> expected(shape, T{0});
  lwfm::EmbeddingWeights<double> weights;
  lwfm::MatchingWorkspace<double> matching;
  std::vector<double> a(size(P)), b(size(M));
  for (int p = 0; p < shape.pairs(); ++p) {
    const int q = p / shape.supports, s = p % shape.supports;
    const Pair pair(support, s, query, q);
    lwfm::weigh(weights, pair.block(pair.correlation), 2.0, a.data(), b.data());
    std::copy(a.begin(), a.end(), expected.a.begin() + p * P);
    std::copy(b.begin(), b.end(), expected.b.begin() + p * M);
    if (top_k == 0) continue;
    const std::int64_t* given = actual.assignment.data() + p * P;
    check_assignment<T>(pair.block(pair.cosine), given);
    const Pair compared = embedded ? Pair(support_compared, s, query_compared, q) : pair;
    std::vector<double> cosines(size(P));
    for (std::int64_t i = 0; i < P; ++i) {
      if (given[i] >= 0) cosines[size(i)] = compared.block(compared.cosine).at(i, given[i]);
    }
    lwfm::select_matches(matching, cosines.data(), given, P, top_k);
    expected.similarity[size(p)] = static_cast<T>(lwfm::mean_of_matches(matching, top_k));
  }
  const double terms = 4.0 * (P + M) + support.channels;
  CHECK(tests::close(actual.a, expected.a, terms));
  CHECK(tests::close(actual.b, expected.b, terms));
  if (top_k > 0) CHECK(tests::close(actual.similarity, expected.similarity, terms));
}

// Both tiles where both exist: with one multiprocessor the large one is chosen.
template <class In, class T>
void equals_the_core(const Case<In, T>& problem) {
  for (const int processors : {1, 1 << 20}) {
    Results<T> first(problem.shape, T{-9});
    lwfm::correlate_pairs(problem.arguments(first), processors, nullptr);
    problem.check(first);
    simt::for_each_schedule([&] {
      Results<T> actual(problem.shape, T{-9});
      lwfm::correlate_pairs(problem.arguments(actual), processors, nullptr);
      CHECK(actual.a == first.a && actual.b == first.b);
      CHECK(actual.similarity == first.similarity && actual.assignment == first.assignment);
    });
  }
}

// Whole tiles and parts of them, squares and rectangles; compared by other features or the same.
template <class In, class T>
void check_all(const std::vector<tests::Shape>& shapes, std::mt19937_64& engine) {
  int round = 0;
  for (const tests::Shape& shape : shapes) {
    const int all = std::min(shape.rows, shape.columns);
    const int top_k = round % 3 == 0 ? (1 + all) / 2 : round % 3 == 1 ? all : 1;
    const int C = round % 2 == 0 ? 33 : 5, D = round % 4 < 2 ? 18 : 0;
    equals_the_core(Case<In, T>(shape, C, D, round % 3 < 2, top_k, engine));
    ++round;
  }
}

// Zero vectors have cosine 0 and cost 1; equal positions tie; a NaN stays in its pairs.
void special_values(std::mt19937_64& engine) {
  const tests::Shape shape{4, 4, 4, 4};
  Case<float, float> problem(shape, 6, 0, true, 2, engine);
  for (int c = 0; c < 6; ++c) {
    problem.support.data[problem.support.index(0, 1, c)] = 0.0f;
    problem.query.data[problem.query.index(2, 0, c)] = 0.0f;
    for (int p = 1; p < 4; ++p) {
      problem.support.data[problem.support.index(3, p, c)] =
          problem.support.data[problem.support.index(3, 0, c)];
    }
  }
  equals_the_core(problem);
  problem.query.data[problem.query.index(1, 2, 3)] = std::numeric_limits<float>::quiet_NaN();
  Results<float> actual(shape, -9.0f);
  lwfm::correlate_pairs(problem.arguments(actual), 1, nullptr);
  for (int p = 0; p < shape.pairs(); ++p) {
    const bool has_nan = p / shape.supports == 1;
    CHECK(std::isnan(actual.similarity[size(p)]) == has_nan);
    CHECK(std::isnan(actual.a[size(p * 4)]) == has_nan);
    CHECK((actual.assignment[size(p * 4)] == -1) == has_nan);
  }
}

}  // namespace

int main() {
  std::mt19937_64 engine(17);
  const std::vector<tests::Shape> few{{2, 3, 9, 9}, {3, 2, 4, 7}};
  check_all<float, float>({{8, 9, 9, 9},
                           {3, 2, 4, 7},
                           {2, 3, 7, 4},
                           {3, 3, 25, 25},
                           {1, 1, 1, 1},
                           {2, 1, 32, 3},
                           {2, 2, 17, 32},
                           {70, 3, 1, 1}},
                          engine);
  check_all<double, double>(few, engine);
  check_all<__half, float>(few, engine);
  check_all<__nv_bfloat16, float>(few, engine);
  equals_the_core(Case<float, float>({4, 5, 9, 9}, 16, 0, true, 0, engine));  // no matching
  special_values(engine);
  return check::result();
}
