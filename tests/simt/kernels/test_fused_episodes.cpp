// The kernel on episodes that multiplies positions itself, executed under emulation, against the
// arithmetic of the core.
#include "core_episodes.h"
#include "cuda/fused_plan.h"
#include "cuda/portable.h"

namespace {

using tests::EpisodeResults;
using tests::Episodes;
using tests::size;

// Of a launch; with one multiprocessor blocks are never few.
struct Form {
  bool tf32;
  int multiprocessors;
};
#if defined(__SANITIZE_THREAD__) || defined(LWFM_QUICK)
constexpr Form kForms[] = {{false, 1}, {true, 1 << 20}};
#else
constexpr Form kForms[] = {{false, 1}, {false, 1 << 20}, {true, 1}, {true, 1 << 20}};
#endif

bool is_fused(const tests::EpisodeShape& shape) {
  std::int64_t most = 0;
  for (const std::int64_t P : shape.P) most = std::max(most, P);
  const bool merged = shape.options.merge_shots && shape.options.matches();
  return !merged && most <= lwfm::kMaxAssignedPositions;
}

// R is nowhere in memory.
template <class T>
lwfm::EpisodeArguments<T> fused_arguments(const Episodes<T>& of, EpisodeResults<T>& to) {
  lwfm::EpisodeArguments<T> arguments = to.arguments(of, false);
  for (int l = 0; l < arguments.layers; ++l) {
    arguments.of[l].products = arguments.of[l].class_products = nullptr;
  }
  arguments.workspace = nullptr;
  return arguments;
}

template <class T>
EpisodeResults<T> launch(const Episodes<T>& of, const Form& form) {
  EpisodeResults<T> actual(of);
  lwfm::compare_fused_episodes(fused_arguments(of, actual), form.tf32, form.multiprocessors,
                               nullptr);
  return actual;
}

template <class T>
void results_equal_the_core(const Episodes<T>& of, const Form& form) {
  const EpisodeResults<T> expected = tests::results_of_core(of);
  simt::for_each_schedule([&] { tests::require_equal(of, launch(of, form), expected, false); });
}

// In TF32, of numbers that it holds.
Episodes<float> rounded(Episodes<float> of) {
  for (tests::EpisodePool<float>& layer : of.pool) {
    for (float& x : layer.positions) x = nvcuda::wmma::__float_to_tf32(x);
    layer.multiply();
  }
  return of;
}

// One product of numbers that TF32 does not hold is off by about 2^-11.
void tf32_rounds(const Episodes<float>& of) {
  const EpisodeResults<float> exact = launch(of, {false, 1}), actual = launch(of, {true, 1});
  float most = 0.0f;
  for (std::size_t n = 0; n < exact.a[0].size(); ++n) {
    most = std::max(most, std::fabs(exact.a[0][n] - actual.a[0][n]));
  }
  CHECK(most < 0.02f);
#if LWFM_TENSOR_CORES
  CHECK(most > 1e-5f);
#endif
}

// Queries of one episode in two launches.
template <class T>
void parts_equal_the_whole(const Episodes<T>& of) {
  const EpisodeResults<T> whole = launch(of, {false, 1});
  EpisodeResults<T> parts(of);
  const std::int64_t Q = of.shape.Q, first = 1;
  for (const std::int64_t begin : {std::int64_t{0}, first}) {
    lwfm::EpisodeArguments<T> part = fused_arguments(of, parts);
    part.lists.Q = begin == 0 ? first : Q - first;
    part.lists.first_query = begin;
    part.sums += begin * part.sums_of_query();
    part.base += begin * of.shape.way();
    part.matching += begin * of.shape.way();
    part.features += begin * of.channels();
    for (int l = 0; l < part.layers; ++l) {
      part.of[l].a += begin * of.S * part.of[l].P;
      part.of[l].b += begin * of.S * part.of[l].P;
    }
    lwfm::compare_fused_episodes(part, false, 1, nullptr);
  }
  CHECK(parts.base == whole.base && parts.matching == whole.matching);
  CHECK(parts.features == whole.features && parts.sums == whole.sums);
  CHECK(parts.a == whole.a && parts.b == whole.b);
}

// Wrong lists read nothing that does not exist; a NaN stays in the results of its images.
template <class T>
void wrong_lists_and_nan(Episodes<T> of) {
  Episodes<T> wrong = of;
  wrong.order[0] = wrong.order[2] = -5;
  wrong.order[1] = wrong.order[3] = std::int64_t{1} << 40;
  wrong.begin[0] = wrong.begin[2] = 1 << 20;
  wrong.support[0] = -1;
  wrong.query[1] = 1 << 30;
  (void)launch(wrong, {false, 1});
  const std::int64_t numbers = of.pool[0].P * of.pool[0].C, way = of.shape.way();
  of.pool[0].positions[size(of.query_image(0, 1) * numbers + 1)] =
      std::numeric_limits<T>::quiet_NaN();
  of.pool[0].positions[size(of.support_image(1, of.order[0]) * numbers + 3)] =
      std::numeric_limits<T>::quiet_NaN();
  const EpisodeResults<T> actual = launch(of, {false, 1});
  for (std::int64_t n = 0; n < of.shape.E * of.shape.Q * way; ++n) {
    const std::int64_t e = n / way / of.shape.Q, q = n / way % of.shape.Q, c = n % way;
    bool has_nan = false;
    const auto add = [&](std::int64_t image) {
      has_nan =
          has_nan || image == of.query_image(0, 1) || image == of.support_image(1, of.order[0]);
    };
    add(of.query_image(e, q));
    for (std::int64_t k = of.begin[size(c)]; k < of.begin[size(c + 1)]; ++k) {
      add(of.support_image(e, of.order[size(k)]));
    }
    CHECK(std::isnan(actual.base[size(n)]) == has_nan);
    CHECK(std::isnan(actual.matching[size(n)]) == has_nan);
  }
}

// Of more images, queries and channels than there is room for at a time.
std::vector<tests::EpisodeShape> large_shapes() {
  return {
      {"images of two tiles", 1, 2, {9, 1}, {9, 4}, 20, 6, false, {2.0, 1, true, false, false}},
      {"queries of two blocks", 2, 9, {2, 1}, {9}, 33, 0, true, {2.0, -1, false, false, true}},
      {"means of two groups of queries",
       1,
       20,
       {2, 1},
       {3},
       70,
       0,
       false,
       {2.0, 1, false, false, false}},
      {"channels of two turns", 1, 2, {1, 5}, {16}, 530, 0, false, {2.0, 1, false, false, false}},
      {"as many positions as lanes",
       1,
       3,
       {1, 3},
       {32, 25},
       36,
       8,
       false,
       {2.0, 4, false, false, false}},
  };
}

template <class T>
void check_all(const std::vector<tests::EpisodeShape>& shapes, std::mt19937_64& engine) {
  for (const tests::EpisodeShape& shape : shapes) {
    const Episodes<T> episodes(shape, engine);
    if (!is_fused(shape)) continue;
    for (const Form& form : kForms) {
      if constexpr (std::is_same_v<T, float>) {
        results_equal_the_core(form.tf32 ? rounded(episodes) : episodes, form);
      } else if (form.tf32) {
        results_equal_the_core(episodes, form);  // one kernel, whatever the form
        break;
      }
    }
  }
}

// All layers and episodes in one launch, and one for the features.
void launches_are_few(const Episodes<float>& of) {
  EpisodeResults<float> to(of);
  lwfm::EpisodeArguments<float> arguments = fused_arguments(of, to);
  for (const unsigned count : {2u, 1u}) {
    const unsigned before = simt::launches();
    lwfm::compare_fused_episodes(arguments, false, 1, nullptr);
    CHECK(simt::launches() - before == count);
    arguments.features = nullptr;
  }
}

// What the rule says of episodes of two layers [512, 512].
bool fuses(std::int64_t E, std::int64_t way, std::int64_t shots, std::int64_t P, bool merged) {
  const std::int64_t list = 0;
  return lwfm::should_fuse(
      {{1000, E, way * shots, 15 * way, way, nullptr, nullptr, &list, &list, 0},
       merged,
       {{P, 512}, {P, 512}},
       4},
      132);
}

void the_rule() {
  CHECK(fuses(1, 5, 5, 9, false) && fuses(1, 5, 1, 25, false));
  CHECK(!fuses(1, 5, 5, 36, false));  // more than a warp assigns
  CHECK(!fuses(1, 5, 5, 9, true));
  CHECK(!fuses(1, 100, 5, 25, false));  // one image of a class beside two queries: read too often
}

}  // namespace

int main() {
  std::mt19937_64 engine(31);
  const std::vector<tests::EpisodeShape> shapes = tests::episode_shapes(), large = large_shapes();
  check_all<float>(shapes, engine);
  check_all<float>(large, engine);
#ifndef __SANITIZE_THREAD__
  check_all<double>(large, engine);
#ifndef LWFM_QUICK
  check_all<double>(shapes, engine);
#endif
#endif
  tf32_rounds(Episodes<float>(shapes[0], engine));
  parts_equal_the_whole(Episodes<float>(shapes[0], engine));
  wrong_lists_and_nan(Episodes<float>(shapes[1], engine));
  launches_are_few(Episodes<float>(shapes[1], engine));
  the_rule();
  return check::result();
}
