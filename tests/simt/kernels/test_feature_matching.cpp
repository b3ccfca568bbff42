// The kernels of feature matching, executed under emulation, against the arithmetic of the core.
#include "core/matching/feature_matching.h"
#include "core/matching/norms.h"
#include "cuda/feature_kernels.h"
#include "cuda/feature_matching.cuh"
#include "cuda/pair_kernels.h"
#include "pair_problems.h"

namespace {

using tests::Blocks;
using tests::Shape;

// Features of both sides of Blocks, some of them zero vectors or shorter than the smallest norm.
template <class T>
struct Images {
  Shape shape;
  bool paired;
  std::int64_t channels;
  Blocks<T> cosines;
  std::vector<T> support, query, support_inverse, query_inverse;

  Images(const Shape& s, bool as_pairs, std::int64_t D, std::mt19937_64& engine)
      : shape(s), paired(as_pairs), channels(D), cosines(s, engine) {
    support = tests::random_vector<T>(S() * s.rows * D, engine);
    query = tests::random_vector<T>(std::int64_t{s.queries} * s.columns * D, engine);
    std::fill_n(support.begin(), D, T{0});
    std::fill_n(query.end() - D, D, static_cast<T>(1e-10));
    support_inverse = inverse_of(support);
    query_inverse = inverse_of(query);
  }

  // Paired images are Blocks of one support image: raw [B, 1, P, M] is [B, P, M].
  std::int64_t S() const { return paired ? shape.queries : shape.supports; }

  std::vector<T> inverse_of(const std::vector<T>& x) const {
    std::vector<T> inverse(x.size() / tests::size(channels));
    lwfm::inverse_norms<lwfm::kNarrow>(x.data(), static_cast<std::int64_t>(inverse.size()),
                                       channels, inverse.data());
    return inverse;
  }

  lwfm::ImagesOfPair images() const { return {paired, S()}; }

  lwfm::Features<T> of_support(std::int64_t s) const {
    return {support.data() + s * shape.rows * channels, support_inverse.data() + s * shape.rows,
            channels};
  }
  lwfm::Features<T> of_query(std::int64_t q) const {
    return {query.data() + q * shape.columns * channels, query_inverse.data() + q * shape.columns,
            channels};
  }
  lwfm::FeatureSide<T> support_side() const {
    return {support.data(), support_inverse.data(), shape.rows};
  }
  lwfm::FeatureSide<T> query_side() const {
    return {query.data(), query_inverse.data(), shape.columns};
  }
};

template <class T>
struct Result {
  std::vector<T> similarity, matched;
  std::vector<std::int64_t> assignment;

  explicit Result(const Shape& shape)
      : similarity(tests::size(shape.pairs()), T{-7}),
        matched(tests::size(shape.pairs() * shape.rows), T{-7}),
        assignment(matched.size(), -7) {}
};

template <class T>
Result<T> of_core(const Images<T>& x, int top_k) {
  Result<T> result(x.shape);
  lwfm::MatchingWorkspace<T> workspace;
  const auto images = x.images();
  for (int p = 0; p < x.shape.pairs(); ++p) {
    const std::int64_t first = std::int64_t{p} * x.shape.rows;
    std::int64_t* const columns = result.assignment.data() + first;
    T* const cosines = result.matched.data() + first;
    lwfm::match_positions(workspace, x.cosines.block(p), columns);
    lwfm::matched_cosines<lwfm::kNarrow>(x.of_support(images.support(p)),
                                         x.of_query(images.query(p)), columns, x.shape.rows,
                                         cosines);
    lwfm::select_matches(workspace, cosines, columns, x.shape.rows, top_k);
    result.similarity[tests::size(p)] = lwfm::mean_of_selected(workspace, top_k);
  }
  return result;
}

template <class T>
lwfm::FeatureMatchingArguments<T> arguments_of(const Images<T>& x, int top_k, Result<T>& to) {
  return {tests::pair_shape(x.shape),
          top_k,
          x.cosines.view(),
          x.images(),
          x.channels,
          x.support_side(),
          x.query_side(),
          to.similarity.data(),
          to.assignment.data(),
          to.matched.data()};
}

// Small pairs are assigned by the kernel, others get their assignment.
template <class T>
void matches_equal_the_core(const Images<T>& x, int top_k) {
  const Result<T> expected = of_core(x, top_k);
  const auto terms = static_cast<double>(x.channels);
  const bool small = std::max(x.shape.rows, x.shape.columns) <= lwfm::kMaxAssignedPositions;
  simt::for_each_schedule([&] {
    Result<T> actual(x.shape);
    if (!small) actual.assignment = expected.assignment;
    const auto arguments = arguments_of(x, top_k, actual);
    small ? lwfm::match_features(arguments, nullptr) : lwfm::compare_features(arguments, nullptr);
    CHECK(actual.assignment == expected.assignment);
    CHECK(tests::close(actual.matched, expected.matched, terms));
    CHECK(tests::close(actual.similarity, expected.similarity, terms));
  });
}

template <class T>
void norms_equal_the_core(const Images<T>& x) {
  std::vector<T> actual(x.support_inverse.size(), T{-7});
  lwfm::find_inverse_norms(x.support.data(), static_cast<std::int64_t>(actual.size()), x.channels,
                           actual.data(), nullptr);
  CHECK(tests::close(actual, x.support_inverse, static_cast<double>(x.channels)));
}

// The gradient of one side in the order of the core: over the pairs of each image.
template <class T>
std::vector<T> gradient_of_core(const Images<T>& x, const Result<T>& forward,
                                const std::vector<T>& grad, int top_k, bool of_support) {
  const std::int64_t rows = of_support ? x.shape.rows : x.shape.columns;
  std::vector<T> result(of_support ? x.support.size() : x.query.size(), T{0});
  std::vector<T> along(result.size() / tests::size(x.channels), T{0});
  lwfm::MatchingWorkspace<T> workspace;
  const auto images = x.images();
  for (int p = 0; p < x.shape.pairs(); ++p) {
    const std::int64_t first = std::int64_t{p} * x.shape.rows;
    const std::int64_t own = of_support ? images.support(p) : images.query(p);
    lwfm::select_matches(workspace, forward.matched.data() + first,
                         forward.assignment.data() + first, x.shape.rows, top_k);
    const auto s = x.of_support(images.support(p)), q = x.of_query(images.query(p));
    lwfm::matched_cosines_backward<lwfm::kNarrow>(
        workspace, of_support, of_support ? s : q, of_support ? q : s,
        forward.assignment.data() + first, top_k, grad[tests::size(p)] / static_cast<T>(top_k),
        {result.data() + own * rows * x.channels, along.data() + own * rows});
  }
  const std::int64_t count = of_support ? x.S() : x.shape.queries;
  for (std::int64_t own = 0; own < count; ++own) {
    lwfm::finish_gradient<lwfm::kNarrow, T>(
        of_support ? x.of_support(own) : x.of_query(own), rows,
        {result.data() + own * rows * x.channels, along.data() + own * rows});
  }
  return result;
}

template <class T>
void gradient_equals_the_core(const Images<T>& x, int top_k, std::mt19937_64& engine) {
  const Result<T> forward = of_core(x, top_k);
  auto grad = tests::random_vector<T>(x.shape.pairs(), engine);
  grad.back() = T{0};
  const auto expected_support = gradient_of_core(x, forward, grad, top_k, true),
             expected_query = gradient_of_core(x, forward, grad, top_k, false);
  simt::for_each_schedule([&] {
    std::vector<T> support(x.support.size(), T{-7}), query(x.query.size(), T{-7}),
        shares(forward.matched.size());
    std::vector<int> rows(tests::size(x.shape.pairs() * x.shape.columns));
    lwfm::match_features_backward<T>(
        {tests::pair_shape(x.shape), top_k, x.images(), x.S(), x.shape.queries, x.channels,
         x.support_side(), x.query_side(), grad.data(), forward.assignment.data(),
         forward.matched.data(), shares.data(), rows.data(), support.data(), query.data()},
        nullptr);
    const auto terms = static_cast<double>(x.channels);
    CHECK(tests::close(support, expected_support, terms));
    CHECK(tests::close(query, expected_query, terms));
  });
}

// A pair without an assignment has the similarity NaN, and gives nothing to any gradient.
template <class T>
void no_assignment_means_nan(std::mt19937_64& engine) {
  Images<T> x({2, 2, 3, 4}, false, 5, engine);
  Result<T> expected = of_core(x, 2), actual(x.shape);
  x.cosines.raw.assign(x.cosines.raw.size(), std::numeric_limits<T>::quiet_NaN());
  lwfm::match_features(arguments_of(x, 2, actual), nullptr);
  CHECK(std::isnan(actual.similarity[0]) && std::isnan(actual.similarity[3]));
  CHECK(actual.assignment == std::vector<std::int64_t>(expected.assignment.size(), -1));
  CHECK(actual.matched == std::vector<T>(expected.matched.size(), T{0}));
}

// Where all costs are equal the assignment is the identity; a pair with a NaN, or with a row that
// may not be assigned at all, has no assignment, and spoils no other.
template <class T>
void ties_and_nan(std::mt19937_64& engine) {
  const Shape shape{2, 2, 6, 6};
  Images<T> x(shape, false, 5, engine);
  Blocks<T>& cosines = x.cosines;
  const Blocks<T> untouched = cosines;
  Result<T> tied(shape), result(shape);
  std::fill(cosines.raw.begin(), cosines.raw.end(), T{0});
  lwfm::match_features(arguments_of(x, 6, tied), nullptr);
  for (int k = 0; k < 24; ++k) CHECK(tied.assignment[tests::size(k)] == k % 6);
  cosines.raw = untouched.raw;
  cosines.raw[7] = std::numeric_limits<T>::quiet_NaN();        // row 0 of query 1, support 0
  std::fill_n(cosines.raw.begin() + 10 * cosines.length(), 6,  // row 4 of query 0, support 1
              -std::numeric_limits<T>::infinity());
  lwfm::match_features(arguments_of(x, 1, result), nullptr);
  for (int p = 0; p < shape.pairs(); ++p) {
    CHECK(std::isnan(result.similarity[tests::size(p)]) == (p == 1 || p == 2));
    CHECK((result.assignment[tests::size(p * 6)] == -1) == (p == 1 || p == 2));
  }
}

template <class T>
void costs_are_written(const Images<T>& x) {
  const Shape& shape = x.shape;
  const int entries = shape.rows * shape.columns;
  simt::for_each_schedule([&] {
    std::vector<T> cost(tests::size(shape.pairs() * entries), T{-9});
    lwfm::write_costs(tests::pair_shape(shape), x.cosines.view(), cost.data(), nullptr);
    for (int p = 0; p < shape.pairs(); ++p) {
      for (int e = 0; e < entries; ++e) {
        const T cosine = x.cosines.block(p).at(e / shape.columns, e % shape.columns);
        CHECK(cost[tests::size(p * entries + e)] == T{1} - cosine);
      }
    }
  });
}

// What distribute_similarity_gradient writes for pairs of a shape, from the assignment and cosines
// of the forward pass, with a grid so small that each group takes several pairs.
template <class T, bool kOfWarp>
std::pair<std::vector<T>, std::vector<int>> shares_of(const Shape& shape, int top_k,
                                                      const std::vector<std::int64_t>& assignment,
                                                      const std::vector<T>& matched,
                                                      const std::vector<T>& grad,
                                                      unsigned threads) {
  std::vector<T> shares(matched.size(), T{-7});
  std::vector<int> rows(tests::size(shape.pairs() * shape.columns), -7);
  const lwfm::FeatureMatchingGradientArguments<T> arguments{tests::pair_shape(shape),
                                                            top_k,
                                                            {},
                                                            shape.supports,
                                                            shape.queries,
                                                            1,
                                                            {},
                                                            {},
                                                            grad.data(),
                                                            assignment.data(),
                                                            matched.data(),
                                                            shares.data(),
                                                            rows.data(),
                                                            nullptr,
                                                            nullptr};
  const std::size_t bytes =
      sizeof(T) * tests::size(lwfm::matches_gradient_scratch(shape.rows, shape.columns, true));
  LWFM_LAUNCH((lwfm::distribute_similarity_gradient<T, kOfWarp>), 2, threads,
              bytes * (kOfWarp ? threads / 32 : 1), nullptr, arguments);
  return {shares, rows};
}

// Equal cosines are taken from the upper rows, a NaN before any number.
template <class T>
void ties_go_to_the_upper_row() {
  const auto shares = [](const std::vector<T>& matched) {
    return shares_of<T, true>({1, 1, 4, 4}, 2, {2, 0, 3, 1}, matched, {T{6}}, 32);
  };
  const auto [tied, rows] = shares({1, 1, 1, 1});
  CHECK((tied == std::vector<T>{3, 3, 0, 0} && rows == std::vector<int>{1, -1, 0, -1}));
  CHECK((shares({1, 1, 1, 2}).first == std::vector<T>{3, 0, 0, 3}));
  const T nan = std::numeric_limits<T>::quiet_NaN();
  CHECK((shares({1, 1, nan, 2}).first == std::vector<T>{0, 0, 3, 3}));
}

// Groups that take several pairs each, one of them without an assignment; nothing of a pair is left
// for the next.
template <class T, bool kOfWarp>
void every_group_gives_the_same_bits(unsigned threads, std::mt19937_64& engine) {
  const Shape shape{3, 5, 7, 4};
  const Images<T> x(shape, false, 6, engine);
  Result<T> expected = of_core(x, 3), actual(shape);
  std::fill_n(expected.assignment.begin() + 9 * 7, 7, std::int64_t{-1});
  expected.similarity[9] = std::numeric_limits<T>::quiet_NaN();
  actual.assignment = expected.assignment;
  const auto arguments = arguments_of(x, 3, actual);
  const std::size_t bytes = sizeof(T) * tests::size(lwfm::matches_scratch(7, 4, true));
  LWFM_LAUNCH((lwfm::compare<T, kOfWarp>), 2, threads, bytes * (kOfWarp ? threads / 32 : 1),
              nullptr, arguments);
  CHECK(tests::close(actual.similarity, expected.similarity, 20));
  const auto grad = tests::random_vector<T>(shape.pairs(), engine);
  const auto several =
      shares_of<T, kOfWarp>(shape, 1, expected.assignment, expected.matched, grad, threads);
  for (int p = 0; p < shape.pairs(); ++p) {
    const auto part = [&](const auto& all, int n) {
      return std::vector(all.begin() + p * n, all.begin() + (p + 1) * n);
    };
    const auto alone = shares_of<T, true>({1, 1, 7, 4}, 1, part(expected.assignment, 7),
                                          part(expected.matched, 7), {grad[tests::size(p)]}, 32);
    CHECK(part(several.first, 7) == alone.first && part(several.second, 4) == alone.second);
  }
}

// The gradient takes a block of threads for each position, which emulation and its sanitizers pay
// for one by one: images of few positions in all must do.
template <class T>
void check_all(std::mt19937_64& engine) {
  for (const Shape& shape : tests::shapes()) {
    const int all = std::min(shape.rows, shape.columns);
    const Images<T> x(shape, shape.supports == 1, shape.rows == 4 ? 600 : 20, engine);
    norms_equal_the_core(x);
    costs_are_written(x);
    matches_equal_the_core(x, (1 + all) / 2);
    if (x.S() * shape.rows + shape.queries * shape.columns > 30) continue;
    gradient_equals_the_core(x, 1, engine);
    gradient_equals_the_core(x, all, engine);
  }
  for (const Shape& shape : {Shape{1, 2, 32, 32}, Shape{3, 1, 2, 31}}) {
    matches_equal_the_core(Images<T>(shape, false, 7, engine), 2);
  }
  no_assignment_means_nan<T>(engine);
  ties_and_nan<T>(engine);
  ties_go_to_the_upper_row<T>();
  every_group_gives_the_same_bits<T, true>(64, engine);
  every_group_gives_the_same_bits<T, false>(32, engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(19);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
