// The kernels of the matched similarity, executed under emulation, against the arithmetic of the
// core.
#include "core/matching/pixel_matching.h"
#include "cuda/matched_similarity.cuh"
#include "cuda/pair_kernels.h"
#include "pair_problems.h"

namespace {

using tests::Blocks;
using tests::Gradients;
using tests::Shape;

// What the core computes for every pair: the assignment by one batch of blocks, the similarity of
// another.
template <class T>
struct Expected {
  std::vector<std::int64_t> assignment;
  std::vector<T> similarity;

  Expected(const Blocks<T>& cosines, const Blocks<T>& compared, int top_k)
      : assignment(tests::size(cosines.shape.pairs() * cosines.shape.rows)),
        similarity(tests::size(cosines.shape.pairs())) {
    lwfm::MatchingWorkspace<T> workspace;
    for (int p = 0; p < cosines.shape.pairs(); ++p) {
      std::int64_t* const columns = assignment.data() + p * cosines.shape.rows;
      lwfm::match_positions(workspace, cosines.block(p), columns);
      similarity[tests::size(p)] =
          lwfm::matched_similarity(workspace, compared.block(p), columns, top_k);
    }
  }
};

template <class T>
std::vector<T> compare(const Blocks<T>& blocks, std::vector<std::int64_t> assignment, int top_k) {
  std::vector<T> similarity(tests::size(blocks.shape.pairs()), T{-9});
  lwfm::compare_pairs<T>({tests::pair_shape(blocks.shape), top_k, blocks.view(), blocks.view(),
                          similarity.data(), assignment.data()},
                         nullptr);
  return similarity;
}

template <class T>
void similarity_equals_the_core(const Shape& shape, int top_k, std::mt19937_64& engine) {
  const Blocks<T> cosines(shape, engine), compared(shape, engine);
  const Expected<T> expected(cosines, compared, top_k);
  simt::for_each_schedule([&] {
    CHECK(tests::close(compare(compared, expected.assignment, top_k), expected.similarity, top_k));
  });
}

template <class T>
void gradient_equals_the_core(const Shape& shape, int top_k, std::mt19937_64& engine) {
  const Blocks<T> blocks(shape, engine);
  const Expected<T> forward(blocks, blocks, top_k);
  const auto grad = tests::random_vector<T>(shape.pairs(), engine);
  Gradients<T> expected(blocks);
  expected.fill(T{0});
  lwfm::MatchingWorkspace<T> workspace;
  for (int p = 0; p < shape.pairs(); ++p) {
    lwfm::matched_similarity_backward(workspace, blocks.block(p),
                                      forward.assignment.data() + p * shape.rows, top_k,
                                      grad[tests::size(p)], expected.block(blocks, p));
  }
  simt::for_each_schedule([&] {
    Gradients<T> actual(blocks);
    lwfm::compare_pairs_backward<T>(
        {tests::pair_shape(shape), top_k, tests::contiguous(grad, shape, 1), blocks.view(),
         forward.assignment.data(), actual.view(blocks)},
        nullptr);
    CHECK(tests::close(actual.raw, expected.raw, 4));
    CHECK(tests::close(actual.row_scale, expected.row_scale, 4));
    CHECK(tests::close(actual.column_scale, expected.column_scale, 4));
  });
}

// Equal cosines are taken from the upper rows, a NaN before any number, so the gradient says which
// were selected.
template <class T>
void ties_go_to_the_upper_row(std::mt19937_64& engine) {
  const Shape shape{1, 1, 4, 4};
  Blocks<T> blocks(shape, engine);
  std::fill(blocks.raw.begin(), blocks.raw.end(), T{1});
  std::fill(blocks.row_scale.begin(), blocks.row_scale.end(), T{1});
  std::fill(blocks.column_scale.begin(), blocks.column_scale.end(), T{1});
  const std::vector<std::int64_t> assignment{2, 0, 3, 1};
  const std::vector<T> grad{T{6}};
  const auto selected = [&] {
    Gradients<T> gradient(blocks);
    lwfm::compare_pairs_backward<T>({tests::pair_shape(shape), 2, tests::contiguous(grad, shape, 1),
                                     blocks.view(), assignment.data(), gradient.view(blocks)},
                                    nullptr);
    return gradient.row_scale;
  };
  CHECK(selected() == std::vector<T>{3, 3, 0, 0});
  blocks.raw[3 * 4 + 1] = T{2};
  CHECK(selected() == std::vector<T>{3, 0, 0, 6});
  blocks.raw[2 * 4 + 3] = std::numeric_limits<T>::quiet_NaN();
  const auto with_nan = selected();
  CHECK(std::isnan(with_nan[2]) && with_nan[3] == T{6} && with_nan[0] == T{0});
  CHECK(std::isnan(compare(blocks, assignment, 2)[0]));
}

// A pair without an assignment has the similarity NaN, and its neighbors keep theirs.
template <class T>
void no_assignment_means_nan(std::mt19937_64& engine) {
  const Shape shape{2, 2, 3, 5};
  const Blocks<T> blocks(shape, engine);
  Expected<T> expected(blocks, blocks, 2);
  std::fill_n(expected.assignment.begin() + 3, 3, std::int64_t{-1});
  expected.similarity[1] = std::numeric_limits<T>::quiet_NaN();
  CHECK(tests::close(compare(blocks, expected.assignment, 2), expected.similarity, 2));
}

// Groups that take several pairs each; nothing of a pair is left for the next.
template <class T, bool kOfWarp>
void every_group_gives_the_same_bits(unsigned threads, std::mt19937_64& engine) {
  const Shape shape{3, 5, 7, 4};
  const Blocks<T> blocks(shape, engine);
  Expected<T> expected(blocks, blocks, 3);
  expected.similarity = compare(blocks, expected.assignment, 3);
  std::fill_n(expected.assignment.begin() + 9 * 7, 7, std::int64_t{-1});
  expected.similarity[9] = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> actual(expected.similarity.size());
  const lwfm::PixelMatchingArguments<T> arguments{
      tests::pair_shape(shape),  3, blocks.view(), blocks.view(), actual.data(),
      expected.assignment.data()};
  const std::size_t bytes = sizeof(T) * tests::size(lwfm::matches_scratch(7, 4, true));
  LWFM_LAUNCH((lwfm::compare<T, kOfWarp>), 2, threads, bytes * (kOfWarp ? threads / 32 : 1),
              nullptr, arguments);
  CHECK(tests::close(actual, expected.similarity, 1e-3));
}

template <class T, bool kOfWarp>
void every_group_gives_the_same_gradient(unsigned threads, std::mt19937_64& engine) {
  const Shape shape{3, 5, 4, 7};
  const Blocks<T> blocks(shape, engine);
  const Expected<T> forward(blocks, blocks, 1);
  const auto grad = tests::random_vector<T>(shape.pairs(), engine);
  Gradients<T> expected(blocks), actual(blocks);
  const auto arguments = [&](Gradients<T>& to) {
    return lwfm::PixelMatchingGradientArguments<T>{
        tests::pair_shape(shape),          1,
        tests::contiguous(grad, shape, 1), blocks.view(),
        forward.assignment.data(),         to.view(blocks)};
  };
  lwfm::compare_pairs_backward(arguments(expected), nullptr);
  const auto in_groups = arguments(actual);
  const std::size_t bytes = sizeof(T) * tests::size(lwfm::matches_gradient_scratch(4, 7, true));
  LWFM_LAUNCH((lwfm::compare_backward<T, kOfWarp>), 2, threads,
              bytes * (kOfWarp ? threads / 32 : 1), nullptr, in_groups);
  CHECK(actual.raw == expected.raw && actual.row_scale == expected.row_scale &&
        actual.column_scale == expected.column_scale);
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const Shape& shape : tests::shapes()) {
    const int all = std::min(shape.rows, shape.columns);
    for (const int top_k : {1, (1 + all) / 2, all}) {
      similarity_equals_the_core<T>(shape, top_k, engine);
      gradient_equals_the_core<T>(shape, top_k, engine);
    }
  }
  ties_go_to_the_upper_row<T>(engine);
  no_assignment_means_nan<T>(engine);
  every_group_gives_the_same_bits<T, true>(64, engine);
  every_group_gives_the_same_bits<T, false>(32, engine);
  every_group_gives_the_same_gradient<T, true>(64, engine);
  every_group_gives_the_same_gradient<T, false>(32, engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(13);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
