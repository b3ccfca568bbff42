// The kernels on episodes, executed under emulation, against the arithmetic of the core.
#include "core_episodes.h"

namespace {

using tests::EpisodeResults;
using tests::Episodes;
using tests::size;

template <class T>
void results_equal_the_core(const Episodes<T>& of) {
  const EpisodeResults<T> expected = tests::results_of_core(of);
  bool record = true;
  simt::for_each_schedule([&] {
    EpisodeResults<T> actual(of);
    lwfm::compare_episodes(actual.arguments(of, record), nullptr);
    tests::require_equal(of, actual, expected, record);
    record = !record;
  });
}

// The scratch memory of the kernels of the gradients.
template <class T>
struct GradientScratch {
  std::vector<T> terms;
  std::vector<std::vector<T>> products, embedded_products, squares;
  std::vector<unsigned char> workspace;

  // The gradients of products are written to `to`'s place in memory and finished there.
  lwfm::EpisodeGradientArguments<T> arguments(const Episodes<T>& of, EpisodeResults<T>& forward,
                                              const tests::OutputGradients<T>& from,
                                              tests::EpisodeGradients<T>& to) {
    lwfm::EpisodeGradientArguments<T> result{};
    result.of = forward.arguments(of, true);
    result.base = from.base.data();
    result.matching = from.matching.data();
    result.features = from.features.empty() ? nullptr : from.features.data();
    terms.assign(size(of.shape.E * of.shape.Q * of.shape.way() * 3), T{-7});
    result.terms = terms.data();
    for (std::size_t l = 0; l < of.pool.size(); ++l) {
      const std::size_t count = forward.a[l].size();
      const bool embedded = !to.query_embedded[l].empty();
      products.emplace_back(of.products[l].size(), T{-7});
      embedded_products.emplace_back(embedded ? of.products[l].size() : 0, T{-7});
      T* more[4] = {};
      for (int k = 0; k < (embedded ? 4 : 2); ++k) {
        squares.emplace_back(count, T{-7});
        more[k] = squares.back().data();
      }
      const auto place = [](std::vector<T>& x) { return x.empty() ? nullptr : x.data(); };
      result.to[l] = {products[l].data(),
                      place(embedded_products[l]),
                      more[0],
                      more[1],
                      more[2],
                      more[3],
                      place(to.support[l]),
                      place(to.query[l]),
                      place(to.support_embedded[l]),
                      place(to.query_embedded[l])};
    }
    workspace.resize(lwfm::episode_gradient_workspace(result.of));
    result.of.workspace = workspace.data();
    return result;
  }
};

// What the matrix library does between the kernels.
template <class T>
void multiply_gradients(const Episodes<T>& of, const GradientScratch<T>& scratch,
                        tests::EpisodeGradients<T>& to) {
  for (std::size_t l = 0; l < of.pool.size(); ++l) {
    const auto multiply = [&](const std::vector<T>& products, const auto& supports,
                              const auto& queries, std::int64_t C, std::vector<T>& support,
                              std::vector<T>& query) {
      const std::int64_t rows = of.S * of.pool[l].P, columns = of.shape.Q * of.pool[l].P;
      for (std::int64_t e = 0; e < of.shape.E; ++e) {
        const T* const grad = products.data() + e * rows * columns;
        tests::PlainProducts::transposed(grad, rows, columns, rows, queries[l][size(e)].data(), C,
                                         support.data() + e * rows * C);
        tests::PlainProducts::matrices(grad, rows, columns, rows, supports[l][size(e)].data(), C,
                                       query.data() + e * columns * C);
      }
    };
    multiply(scratch.products[l], of.supports, of.queries, of.pool[l].C, to.support[l],
             to.query[l]);
    if (to.query_embedded[l].empty()) continue;
    multiply(scratch.embedded_products[l], of.support_embedded, of.query_embedded, of.pool[l].D,
             to.support_embedded[l], to.query_embedded[l]);
  }
}

template <class T>
tests::EpisodeGradients<T> launch_gradients(const Episodes<T>& of, EpisodeResults<T>& forward,
                                            const tests::OutputGradients<T>& from) {
  tests::EpisodeGradients<T> to(of);
  GradientScratch<T> scratch;
  const lwfm::EpisodeGradientArguments<T> arguments = scratch.arguments(of, forward, from, to);
  lwfm::differentiate_episodes(arguments, nullptr);
  multiply_gradients(of, scratch, to);
  lwfm::finish_episode_gradients(arguments, nullptr);
  return to;
}

template <class T>
void gradients_equal_the_core(const Episodes<T>& of, std::mt19937_64& engine) {
  EpisodeResults<T> forward(of);
  const tests::OutputGradients<T> from(of, engine);
  const tests::EpisodeGradients<T> expected = tests::gradients_of_core(of, from);
  lwfm::compare_episodes(forward.arguments(of, true), nullptr);
  simt::for_each_schedule([&] {
    const tests::EpisodeGradients<T> actual = launch_gradients(of, forward, from);
    const int before = check::failures;
    const double terms = 64.0 * static_cast<double>(of.S * of.shape.P[0] + of.shape.C);
    for (std::size_t l = 0; l < of.pool.size(); ++l) {
      CHECK(tests::close(actual.support[l], expected.support[l], terms));
      CHECK(tests::close(actual.query[l], expected.query[l], terms));
      CHECK(tests::close(actual.support_embedded[l], expected.support_embedded[l], terms));
      CHECK(tests::close(actual.query_embedded[l], expected.query_embedded[l], terms));
    }
    if (check::failures > before) std::fprintf(stderr, "of: %s\n", of.shape.name);
  });
}

// Queries of one episode in two launches.
template <class T>
void parts_equal_the_whole(const Episodes<T>& of) {
  EpisodeResults<T> whole(of), parts(of);
  lwfm::compare_episodes(whole.arguments(of, true), nullptr);
  const std::int64_t Q = of.shape.Q, first = 1;
  for (const std::int64_t begin : {std::int64_t{0}, first}) {
    lwfm::EpisodeArguments<T> part = parts.arguments(of, true);
    part.lists.Q = begin == 0 ? first : Q - first;
    part.lists.first_query = begin;
    part.sums += begin * part.sums_of_query();
    part.base += begin * of.shape.way();
    part.matching += begin * of.shape.way();
    part.features += begin * of.channels();
    for (int l = 0; l < part.layers; ++l) {
      lwfm::EpisodeLayerArguments<T>& layer = part.of[l];
      const std::int64_t rows = of.S * layer.P;
      layer.products += begin * layer.P * rows;
      layer.a += begin * rows;
      layer.b += begin * rows;
      layer.assignment += begin * rows;
      layer.cosines += begin * rows;
    }
    lwfm::compare_episodes(part, nullptr);
  }
  CHECK(parts.base == whole.base && parts.matching == whole.matching);
  CHECK(parts.features == whole.features && parts.sums == whole.sums);
  CHECK(parts.a == whole.a && parts.b == whole.b && parts.assignment == whole.assignment);
}

// Wrong lists read nothing that does not exist; a NaN stays in the results of its query.
template <class T>
void wrong_lists_and_nan(Episodes<T> of, std::mt19937_64& engine) {
  Episodes<T> wrong = of;
  wrong.order[0] = wrong.order[2] = -5;
  wrong.order[1] = wrong.order[3] = std::int64_t{1} << 40;
  wrong.begin[0] = wrong.begin[2] = 1 << 20;
  wrong.support[0] = -1;
  wrong.query[1] = 1 << 30;
  EpisodeResults<T> ignored(wrong);
  lwfm::compare_episodes(ignored.arguments(wrong, true), nullptr);
#ifndef __SANITIZE_THREAD__  // an image that wrong lists name twice has gradients of two blocks
  launch_gradients(wrong, ignored, tests::OutputGradients<T>(wrong, engine));
#endif
  const std::int64_t rows = of.S * of.shape.P[0];
  of.products[0][size(of.shape.P[0] * rows)] = std::numeric_limits<T>::quiet_NaN();  // of query 1
  EpisodeResults<T> actual(of);
  lwfm::compare_episodes(actual.arguments(of, true), nullptr);
  const std::int64_t c = [&] {  // the class of the first image
    std::int64_t at = 0, number = 0;
    while (of.order[size(number)] != 0) ++number;
    while (of.begin[size(at + 1)] <= number) ++at;
    return at;
  }();
  for (std::int64_t k = 0; k < of.shape.way(); ++k) {
    CHECK(std::isnan(actual.base[size(of.shape.way() + k)]) == (k == c));
    CHECK(std::isnan(actual.matching[size(of.shape.way() + k)]) == (k == c));
    CHECK(!std::isnan(actual.base[size(k)]));
  }
}

// Of all layers and episodes: one for similarities, one for features; one for the gradients of
// products, one for the rest.
template <class T>
void launches_are_few(const Episodes<T>& of, std::mt19937_64& engine) {
  EpisodeResults<T> forward(of);
  const unsigned before = simt::launches();
  lwfm::compare_episodes(forward.arguments(of, true), nullptr);
  const unsigned between = simt::launches();
  launch_gradients(of, forward, tests::OutputGradients<T>(of, engine));
  CHECK(between - before == 2);
  CHECK(simt::launches() - between == 2);
}

// ThreadSanitizer takes a millisecond for every thread, and the gradients take a block for every
// position.
bool is_checked_backward(const tests::EpisodeShape& shape) {
#ifdef __SANITIZE_THREAD__
  std::int64_t positions = 0;
  for (const std::int64_t P : shape.P) positions += shape.E * (shape.S() + shape.Q) * P;
  return positions <= 40;
#else
  (void)shape;
  return true;
#endif
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const tests::EpisodeShape& shape : tests::episode_shapes()) {
    const Episodes<T> episodes(shape, engine);
    results_equal_the_core(episodes);
    if (is_checked_backward(shape)) gradients_equal_the_core(episodes, engine);
  }
  parts_equal_the_whole(Episodes<T>(tests::episode_shapes()[0], engine));
  launches_are_few(Episodes<T>(tests::episode_shapes()[0], engine), engine);
  wrong_lists_and_nan(Episodes<T>(tests::episode_shapes()[1], engine), engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(29);
  check_all<float>(engine);
#ifndef __SANITIZE_THREAD__
  check_all<double>(engine);
#endif
  return check::result();
}
