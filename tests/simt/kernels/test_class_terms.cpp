// The kernels of class terms, executed under emulation, against the arithmetic of the core.
#include "core/matching/class_terms.h"
#include "cuda/feature_kernels.h"
#include "pair_problems.h"

namespace {

// Images, weights and classes of several shots.
template <class T>
struct Episode {
  std::int64_t Q, S, P, M, C, way;
  std::vector<std::int64_t> begin, images;
  std::vector<T> a, b, support, query;

  Episode(std::int64_t queries, std::vector<std::int64_t> shots, std::int64_t rows,
          std::int64_t columns, std::int64_t channels, std::mt19937_64& engine)
      : Q(queries), S(0), P(rows), M(columns), C(channels), way(0), begin{0} {
    for (const std::int64_t K : shots) {
      S += K;
      begin.push_back(S);
    }
    way = static_cast<std::int64_t>(shots.size());
    for (std::int64_t k = 0; k < S; ++k) images.push_back(k);
    std::shuffle(images.begin(), images.end(), engine);
    a = tests::random_vector<T>(Q * S * P, engine);
    b = tests::random_vector<T>(Q * S * M, engine);
    support = tests::random_vector<T>(S * P * C, engine);
    query = tests::random_vector<T>(Q * M * C, engine);
  }

  lwfm::ClassImages classes() const { return {way, begin.data(), images.data()}; }
  lwfm::LayerImages<T> layer() const { return {support.data(), query.data(), S, P, M, C}; }
  lwfm::ClassTermsInputs<T> inputs() const {
    return {Q, S, P, M, C, classes(), a.data(), b.data(), support.data(), query.data()};
  }
  double terms() const { return static_cast<double>(C * (S + 1)); }
};

// inner, square_s, square_q [Q, way] and features [Q, C], or gradients of them.
template <class T>
struct Terms {
  std::vector<T> inner, square_s, square_q, features;

  explicit Terms(const Episode<T>& x)
      : inner(tests::size(x.Q * x.way), T{-7}),
        square_s(inner),
        square_q(inner),
        features(tests::size(x.Q * x.C), T{-7}) {}
};

template <class T>
void launch(const Episode<T>& x, Terms<T>& to) {
  lwfm::compare_classes<T>(
      {x.inputs(), to.inner.data(), to.square_s.data(), to.square_q.data(), to.features.data()},
      nullptr);
}

template <class T>
void terms_equal_the_core(const Episode<T>& x) {
  Terms<T> expected(x);
  lwfm::ClassTerms<T> workspace;
  for (std::int64_t q = 0; q < x.Q; ++q) {
    workspace.template forward<lwfm::kNarrow>(
        x.layer(), x.classes(), {q, 1},
        {x.a.data(), x.b.data(), expected.inner.data(), expected.square_s.data(),
         expected.square_q.data(), expected.features.data()});
  }
  simt::for_each_schedule([&] {
    Terms<T> actual(x);
    launch(x, actual);
    CHECK(tests::close(actual.inner, expected.inner, x.terms()));
    CHECK(tests::close(actual.square_s, expected.square_s, x.terms()));
    CHECK(tests::close(actual.square_q, expected.square_q, x.terms()));
    CHECK(tests::close(actual.features, expected.features, x.terms()));
  });
}

// Gradients of a, b, support, query.
template <class T>
struct Gradients {
  std::vector<T> a, b, support, query;

  explicit Gradients(const Episode<T>& x)
      : a(x.a.size(), T{-7}),
        b(x.b.size(), T{-7}),
        support(x.support.size(), T{-7}),
        query(x.query.size(), T{-7}) {}
};

template <class T>
Gradients<T> gradients_of_core(const Episode<T>& x, const Terms<T>& from) {
  Gradients<T> to(x);
  std::vector<T> means(tests::size(x.Q * x.way * x.C));
  lwfm::ClassTerms<T> workspace;
  for (std::int64_t q = 0; q < x.Q; ++q) {
    workspace.template backward<lwfm::kNarrow>(
        x.layer(), x.classes(), {q, 1},
        {x.a.data(), x.b.data(), from.inner.data(), from.square_s.data(), from.square_q.data(),
         from.features.data(), to.a.data(), to.b.data(), to.query.data(), means.data()});
  }
  for (std::int64_t c = 0; c < x.way; ++c) {
    for (std::int64_t k = x.begin[tests::size(c)]; k < x.begin[tests::size(c + 1)]; ++k) {
      const std::int64_t s = x.images[tests::size(k)];
      workspace.template support_gradient<lwfm::kNarrow>(x.layer(), x.classes(), c, s, x.a.data(),
                                                         means.data(), x.Q,
                                                         to.support.data() + s * x.P * x.C);
    }
  }
  return to;
}

template <class T>
void gradients_equal_the_core(const Episode<T>& x, std::mt19937_64& engine) {
  Terms<T> from(x);
  for (auto* part : {&from.inner, &from.square_s, &from.square_q, &from.features}) {
    *part = tests::random_vector<T>(static_cast<std::int64_t>(part->size()), engine);
  }
  const Gradients<T> expected = gradients_of_core(x, from);
  simt::for_each_schedule([&] {
    Gradients<T> actual(x);
    std::vector<T> m_s(tests::size(x.Q * x.way * x.C)), m_q(m_s);
    lwfm::compare_classes_backward<T>(
        {x.inputs(), from.inner.data(), from.square_s.data(), from.square_q.data(),
         from.features.data(), m_s.data(), m_q.data(), actual.a.data(), actual.b.data(),
         actual.support.data(), actual.query.data()},
        nullptr);
    CHECK(tests::close(actual.a, expected.a, x.terms()));
    CHECK(tests::close(actual.b, expected.b, x.terms()));
    CHECK(tests::close(actual.support, expected.support, x.terms()));
    CHECK(tests::close(actual.query, expected.query, x.terms()));
  });
}

// A class that lists an image which does not exist has no terms; the others keep theirs.
template <class T>
void wrong_lists_mean_nan(std::mt19937_64& engine) {
  Episode<T> x(2, {2, 1, 1}, 3, 3, 8, engine);
  Terms<T> before(x), after(x);
  launch(x, before);
  x.images[1] = 99;
  x.begin[3] = 3;  // the last class lists none
  launch(x, after);
  for (const std::size_t q : {0, 3}) {
    CHECK(std::isnan(after.inner[q]) && std::isnan(after.square_s[q]));
    CHECK(after.inner[q + 1] == before.inner[q + 1]);
    CHECK(std::isnan(after.square_q[q + 2]));
  }
}

// More support positions or query positions than a list of rows has room for; the gradient would
// take a block of threads for each of them, which emulation pays for one by one.
template <class T>
void long_lists(std::mt19937_64& engine) {
  terms_equal_the_core(Episode<T>(1, {3, 1}, 50, 3, 5, engine));
  terms_equal_the_core(Episode<T>(1, {1, 2}, 2, 150, 5, engine));
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const Episode<T>& x :
       {Episode<T>(2, {2, 1, 2}, 3, 3, 40, engine), Episode<T>(1, {1}, 1, 1, 1, engine),
        Episode<T>(2, {1, 2}, 2, 4, 600, engine)}) {
    terms_equal_the_core(x);
    gradients_equal_the_core(x, engine);
  }
  long_lists<T>(engine);
  wrong_lists_mean_nan<T>(engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(23);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
