// The kernels on episodes, executed under emulation, against the arithmetic of the core.
#include "episode_problems.h"

namespace {

using tests::CoreEpisodes;
using tests::EpisodeResults;
using tests::Episodes;
using tests::size;

// The core's results in the layout of the kernels' ones.
template <class T>
void read_core(const Episodes<T>& of, const CoreEpisodes<T>& core, EpisodeResults<T>& to) {
  const lwfm::EpisodeImages& images = core.images;
  const std::int64_t E = images.E, Q = images.Q, S = images.S, way = images.classes.way;
  const auto L = static_cast<std::int64_t>(core.layers.size());
  const lwfm::EpisodeSums<T> sums = core.sums();
  to.features = core.features;
  for (std::int64_t n = 0; n < E * Q; ++n) {
    const std::int64_t e = n / Q, q = n % Q;
    T* const of_query = to.sums.data() + n * (3 * way + L * of.problems());
    for (std::int64_t c = 0; c < way; ++c) {
      to.base[size(n * way + c)] = sums.base(e, q, c);
      to.matching[size(n * way + c)] = sums.matching(e, q, c);
      for (int k = 0; k < 3; ++k) of_query[3 * c + k] = sums.term(k, e, q, c);
    }
    for (std::int64_t k = 0; k < L * of.problems(); ++k) {
      const std::int64_t l = k / of.problems(), problem = k % of.problems();
      if (!of.shape.options.matches()) continue;
      of_query[3 * way + k] = core.similarities[size(l)][size((e * of.problems() + problem) * Q + q)];
    }
  }
  for (std::size_t l = 0; l < core.layers.size(); ++l) {
    const std::int64_t rows = S * core.layers[l].P;
    for (std::int64_t n = 0; n < E * Q * rows; ++n) {
      const std::int64_t e = n / rows / Q, q = n / rows % Q, r = n % rows;
      to.a[l][size(n)] = core.a[l][size((e * rows + r) * Q + q)];
      to.b[l][size(n)] = core.b[l][size((e * rows + r) * Q + q)];
    }
    if (!of.shape.options.matches()) continue;
    to.assignment[l] = core.assignment[l];
    to.cosines[l] = core.cosines[l];
  }
}

template <class T>
void require_equal(const Episodes<T>& of, const EpisodeResults<T>& actual,
                   const EpisodeResults<T>& expected, bool record) {
  const int before = check::failures;
  const double terms = 16.0 * static_cast<double>(of.S * of.shape.P[0] + of.shape.C);
  CHECK(tests::close(actual.base, expected.base, terms));
  CHECK(tests::close(actual.matching, expected.matching, terms));
  CHECK(tests::close(actual.features, expected.features, terms));
  CHECK(tests::close(actual.sums, expected.sums, terms));
  for (std::size_t l = 0; l < actual.a.size(); ++l) {
    CHECK(tests::close(actual.a[l], expected.a[l], terms));
    CHECK(tests::close(actual.b[l], expected.b[l], terms));
    if (!record || !of.shape.options.matches()) continue;
    CHECK(actual.assignment[l] == expected.assignment[l]);
    CHECK(tests::close(actual.cosines[l], expected.cosines[l], terms));
  }
  if (check::failures > before) std::fprintf(stderr, "of: %s\n", of.shape.name);
}

template <class T>
void results_equal_the_core(const Episodes<T>& of) {
  const CoreEpisodes<T> core(of);
  EpisodeResults<T> expected(of);
  if (!of.shape.options.matches()) {  // what is not written stays
    for (std::int64_t n = 0; n < of.shape.E * of.shape.Q; ++n) expected.matching.assign(expected.matching.size(), T{0});
  }
  read_core(of, core, expected);
  bool record = true;
  simt::for_each_schedule([&] {
    EpisodeResults<T> actual(of);
    lwfm::compare_episodes(actual.arguments(of, record), nullptr);
    require_equal(of, actual, expected, record);
    record = !record;
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
void wrong_lists_and_nan(Episodes<T> of) {
  Episodes<T> wrong = of;
  wrong.order[0] = -5;
  wrong.order[1] = std::int64_t{1} << 40;
  wrong.begin[1] = 1 << 20;
  wrong.support[0] = -1;
  wrong.query[1] = 1 << 30;
  EpisodeResults<T> ignored(wrong);
  lwfm::compare_episodes(ignored.arguments(wrong, true), nullptr);
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

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const tests::EpisodeShape& shape : tests::episode_shapes()) {
    results_equal_the_core(Episodes<T>(shape, engine));
  }
  parts_equal_the_whole(Episodes<T>(tests::episode_shapes()[0], engine));
  wrong_lists_and_nan(Episodes<T>(tests::episode_shapes()[1], engine));
}

}  // namespace

int main() {
  std::mt19937_64 engine(29);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
