// The kernels of feature matching, executed under emulation, against the arithmetic of the core.
#include "core/matching/feature_matching.h"
#include "core/matching/norms.h"
#include "cuda/feature_kernels.h"
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
    result.similarity[tests::size(p)] = lwfm::mean_of_matches(workspace, top_k);
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

// The gradient takes a block of threads for each position, which emulation and its sanitizers pay
// for one by one: images of few positions in all must do.
template <class T>
void check_all(std::mt19937_64& engine) {
  for (const Shape& shape : tests::shapes()) {
    const int all = std::min(shape.rows, shape.columns);
    const Images<T> x(shape, shape.supports == 1, shape.rows == 4 ? 600 : 20, engine);
    norms_equal_the_core(x);
    matches_equal_the_core(x, (1 + all) / 2);
    if (x.S() * shape.rows + shape.queries * shape.columns > 30) continue;
    gradient_equals_the_core(x, 1, engine);
    gradient_equals_the_core(x, all, engine);
  }
  no_assignment_means_nan<T>(engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(19);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
