// The kernels of layer-wise embedding, executed under emulation, against the arithmetic of the
// core.
#include "core/matching/embedding_weights.h"
#include "cuda/embedding_weights.cuh"
#include "cuda/pair_kernels.h"
#include "pair_problems.h"

namespace {

using tests::Blocks;
using tests::Gradients;
using tests::Shape;

template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

template <class T>
struct Weights {
  std::vector<T> a, b;

  explicit Weights(const Shape& shape)
      : a(tests::size(shape.pairs() * shape.rows), kNan<T>),
        b(tests::size(shape.pairs() * shape.columns), kNan<T>) {}

  bool close_to(const Weights& other, double terms) const {
    return tests::close(a, other.a, terms) && tests::close(b, other.b, terms);
  }
};

template <class T>
Weights<T> expected_weights(const Blocks<T>& blocks, T temperature) {
  const Shape& shape = blocks.shape;
  Weights<T> result(shape);
  lwfm::EmbeddingWeights<T> workspace;
  for (int p = 0; p < shape.pairs(); ++p) {
    lwfm::weigh(workspace, blocks.block(p), temperature, result.a.data() + p * shape.rows,
                result.b.data() + p * shape.columns);
  }
  return result;
}

template <class T>
lwfm::EmbeddingWeightsArguments<T> arguments_for(const Blocks<T>& blocks, T temperature,
                                                 Weights<T>& to) {
  return {tests::pair_shape(blocks.shape), temperature, blocks.view(), to.a.data(), to.b.data()};
}

double terms_of(const Shape& shape) { return 4.0 * (shape.rows + shape.columns); }

template <class T>
void weights_equal_the_core(const Shape& shape, std::mt19937_64& engine) {
  const Blocks<T> blocks(shape, engine);
  const Weights<T> expected = expected_weights(blocks, T{2});
  Weights<T> first(shape);
  lwfm::weigh_pairs(arguments_for(blocks, T{2}, first), nullptr);
  CHECK(first.close_to(expected, terms_of(shape)));
  simt::for_each_schedule([&] {
    Weights<T> actual(shape);
    lwfm::weigh_pairs(arguments_for(blocks, T{2}, actual), nullptr);
    CHECK(actual.a == first.a && actual.b == first.b);
  });
}

template <class T>
void gradients_equal_the_core(const Shape& shape, std::mt19937_64& engine) {
  const Blocks<T> blocks(shape, engine);
  const auto grad_a = tests::random_vector<T>(shape.pairs() * shape.rows, engine);
  const auto grad_b = tests::random_vector<T>(shape.pairs() * shape.columns, engine);
  Gradients<T> expected(blocks);
  lwfm::EmbeddingWeights<T> workspace;
  for (int p = 0; p < shape.pairs(); ++p) {
    lwfm::weigh_backward<T>(
        workspace, blocks.block(p), T{2},
        {{grad_a.data() + p * shape.rows, 1}, {grad_b.data() + p * shape.columns, 1}},
        expected.block(blocks, p));
  }
  simt::for_each_schedule([&] {
    Gradients<T> actual(blocks);
    lwfm::weigh_pairs_backward<T>(
        {tests::pair_shape(shape), T{2}, blocks.view(),
         tests::contiguous(grad_a, shape, shape.rows),
         tests::contiguous(grad_b, shape, shape.columns), actual.view(blocks)},
        nullptr);
    const double terms = 4 * terms_of(shape);
    CHECK(tests::close(actual.raw, expected.raw, terms));
    CHECK(tests::close(actual.row_scale, expected.row_scale, terms));
    CHECK(tests::close(actual.column_scale, expected.column_scale, terms));
  });
}

// Every kernel on every shape it can hold, with a grid so small that each group takes several
// pairs.
template <class T, bool kOfWarp, bool kStaged>
void every_group_gives_the_same_bits(const Blocks<T>& blocks, unsigned threads) {
  const Shape& shape = blocks.shape;
  Weights<T> expected(shape), actual(shape);
  lwfm::weigh_pairs(arguments_for(blocks, T{5}, expected), nullptr);
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(lwfm::weights_scratch(
                                            shape.rows, shape.columns, kStaged));
  const auto arguments = arguments_for(blocks, T{5}, actual);
  LWFM_LAUNCH((lwfm::weigh<T, kOfWarp, kStaged>), 2, threads, bytes * (kOfWarp ? threads / 32 : 1),
              nullptr, arguments);
  CHECK(actual.a == expected.a && actual.b == expected.b);
}

template <class T, bool kOfWarp, bool kStaged>
void every_group_gives_the_same_gradient(const Blocks<T>& blocks, unsigned threads,
                                         std::mt19937_64& engine) {
  const Shape& shape = blocks.shape;
  const auto rows = tests::random_vector<T>(shape.pairs() * shape.rows, engine);
  const auto columns = tests::random_vector<T>(shape.pairs() * shape.columns, engine);
  Gradients<T> expected(blocks), actual(blocks);
  const auto arguments = [&](Gradients<T>& to) {
    const auto of_columns = tests::contiguous(columns, shape, shape.columns);
    return lwfm::EmbeddingWeightsGradientArguments<T>{tests::pair_shape(shape),
                                                      T{5},
                                                      blocks.view(),
                                                      tests::contiguous(rows, shape, shape.rows),
                                                      of_columns,
                                                      to.view(blocks)};
  };
  lwfm::weigh_pairs_backward(arguments(expected), nullptr);
  const auto in_groups = arguments(actual);
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(lwfm::weights_gradient_scratch(
                                            shape.rows, shape.columns, kStaged));
  LWFM_LAUNCH((lwfm::weigh_backward<T, kOfWarp, kStaged>), 2, threads,
              bytes * (kOfWarp ? threads / 32 : 1), nullptr, in_groups);
  CHECK(actual.raw == expected.raw && actual.row_scale == expected.row_scale &&
        actual.column_scale == expected.column_scale);
}

// Where every entry is the same the weights are uniform; a zero scale is a zero vector's.
void ties_and_zero_vectors(std::mt19937_64& engine) {
  const Shape shape{2, 2, 5, 6};
  Blocks<float> blocks(shape, engine);
  std::fill(blocks.raw.begin(), blocks.raw.begin() + shape.rows * blocks.length(), 1.0f);
  std::fill(blocks.row_scale.begin(), blocks.row_scale.end(), 1.0f);
  std::fill(blocks.column_scale.begin(), blocks.column_scale.end(), 0.0f);
  const Weights<float> expected = expected_weights(blocks, 5.0f);
  Weights<float> actual(shape);
  lwfm::weigh_pairs(arguments_for(blocks, 5.0f, actual), nullptr);
  CHECK(actual.close_to(expected, terms_of(shape)));
  CHECK(std::abs(actual.a[0] - 1.2f) < 1e-5f && std::abs(actual.b[0] - 5.0f / 6.0f) < 1e-5f);
}

// A NaN stays in its own pair.
void a_nan_stays_in_its_pair(std::mt19937_64& engine) {
  const Shape shape{2, 3, 9, 9};
  Blocks<float> blocks(shape, engine);
  blocks.raw[0] = kNan<float>;
  const Weights<float> expected = expected_weights(blocks, 5.0f);
  Weights<float> actual(shape);
  lwfm::weigh_pairs(arguments_for(blocks, 5.0f, actual), nullptr);
  CHECK(std::isnan(actual.a[0]) && !std::isnan(actual.a[9]));
  CHECK(actual.close_to(expected, terms_of(shape)));
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const Shape& shape : tests::shapes()) {
    weights_equal_the_core<T>(shape, engine);
    gradients_equal_the_core<T>(shape, engine);
  }
  const Blocks<T> blocks({3, 5, 4, 6}, engine);
  every_group_gives_the_same_bits<T, true, true>(blocks, 64);
  every_group_gives_the_same_bits<T, false, true>(blocks, 32);
  every_group_gives_the_same_bits<T, false, false>(blocks, 96);
  every_group_gives_the_same_gradient<T, true, true>(blocks, 64, engine);
  every_group_gives_the_same_gradient<T, false, true>(blocks, 32, engine);
  every_group_gives_the_same_gradient<T, false, false>(blocks, 96, engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(11);
  check_all<float>(engine);
  check_all<double>(engine);
  weights_equal_the_core<float>({1, 1, 110, 110}, engine);  // stays where it is: no room on chip
  gradients_equal_the_core<double>({1, 1, 80, 75}, engine);
  ties_and_zero_vectors(engine);
  a_nan_stays_in_its_pair(engine);
  return check::result();
}
