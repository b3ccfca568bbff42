// Semantic-pixel matching by one warp a pair, executed under emulation, against the arithmetic of
// the core: assignments by validity and total, similarities by tolerance.
#include "core/matching/pixel_matching.h"
#include "cuda/pair_kernels.h"
#include "pair_problems.h"

namespace {

using tests::Blocks;
using tests::Shape;
using tests::size;

template <class T>
struct Result {
  std::vector<T> similarity;
  std::vector<std::int64_t> assignment;

  bool operator==(const Result& other) const {
    return similarity == other.similarity && assignment == other.assignment;
  }
};

template <class T>
Result<T> match(const Blocks<T>& cosines, const Blocks<T>& compared, int top_k) {
  const Shape& shape = cosines.shape;
  Result<T> result{std::vector<T>(size(shape.pairs()), T{-9}),
                   std::vector<std::int64_t>(size(shape.pairs() * shape.rows), -7)};
  lwfm::match_pairs<T>({tests::pair_shape(shape), top_k, cosines.view(), compared.view(),
                        result.similarity.data(), result.assignment.data()},
                       nullptr);
  return result;
}

// A complete assignment whose total is the least, up to rounding; unassigned rows have -1.
template <class T>
void check_assignment(const lwfm::ScaledBlock<T>& cosines, const std::int64_t* columns) {
  const std::int64_t P = cosines.raw.rows, M = cosines.raw.columns;
  lwfm::MatchingWorkspace<T> workspace;
  std::vector<std::int64_t> best(size(P));
  CHECK(lwfm::match_positions(workspace, cosines, best.data()) == lwfm::Status::ok);
  const auto costs = workspace.cost_matrix(cosines.raw);
  std::vector<int> taken(size(M), 0);
  double greatest = 0.0;
  for (const T cost : workspace.cost) greatest = std::max(greatest, std::abs(double{cost}));
  for (std::int64_t i = 0; i < P; ++i) {
    CHECK(columns[i] >= -1 && columns[i] < M);
    if (columns[i] >= 0) CHECK(++taken[size(columns[i])] == 1);
  }
  CHECK(std::count(taken.begin(), taken.end(), 1) == std::min(P, M));
  const double excess = lwfm::total_cost(costs, columns) - lwfm::total_cost(costs, best.data());
  CHECK(std::abs(excess) <= 4.0 * P * std::numeric_limits<T>::epsilon() * greatest);
}

template <class T>
void equals_the_core(const Shape& shape, int top_k, std::mt19937_64& engine) {
  const Blocks<T> cosines(shape, engine), compared(shape, engine);
  const Result<T> first = match(cosines, compared, top_k);
  std::vector<T> expected;
  lwfm::MatchingWorkspace<T> workspace;
  for (int p = 0; p < shape.pairs(); ++p) {
    const std::int64_t* columns = first.assignment.data() + p * shape.rows;
    check_assignment(cosines.block(p), columns);
    expected.push_back(lwfm::matched_similarity(workspace, compared.block(p), columns, top_k));
  }
  CHECK(tests::close(first.similarity, expected, top_k));
  simt::for_each_schedule([&] { CHECK(match(cosines, compared, top_k) == first); });
}

// Where all costs are equal the assignment is the identity; a pair with a NaN, or with a row that
// may not be assigned at all, has no assignment, and spoils no other.
template <class T>
void ties_and_nan(std::mt19937_64& engine) {
  const Shape shape{2, 2, 6, 6};
  Blocks<T> blocks(shape, engine);
  std::fill(blocks.raw.begin(), blocks.raw.end(), T{0});
  const Result<T> tied = match(blocks, blocks, 6);
  for (int k = 0; k < 24; ++k) CHECK(tied.assignment[size(k)] == k % 6);
  Blocks<T> poisoned(shape, engine);
  poisoned.raw[7] = std::numeric_limits<T>::quiet_NaN();         // row 0 of query 1, support 0
  std::fill_n(poisoned.raw.begin() + 10 * poisoned.length(), 6,  // row 4 of query 0, support 1
              -std::numeric_limits<T>::infinity());
  const Result<T> result = match(poisoned, blocks, 1);
  for (int p = 0; p < shape.pairs(); ++p) {
    CHECK(std::isnan(result.similarity[size(p)]) == (p == 1 || p == 2));
    CHECK((result.assignment[size(p * 6)] == -1) == (p == 1 || p == 2));
  }
}

template <class T>
void costs_are_written(const Shape& shape, std::mt19937_64& engine) {
  const Blocks<T> blocks(shape, engine);
  const int entries = shape.rows * shape.columns;
  simt::for_each_schedule([&] {
    std::vector<T> cost(size(shape.pairs() * entries), T{-9});
    lwfm::PixelMatchingArguments<T> arguments{
        tests::pair_shape(shape), 1, blocks.view(), blocks.view(), nullptr, nullptr};
    lwfm::write_costs(arguments.shape, arguments.cosines, cost.data(), nullptr);
    for (int p = 0; p < shape.pairs(); ++p) {
      for (int e = 0; e < entries; ++e) {
        const T cosine = blocks.block(p).at(e / shape.columns, e % shape.columns);
        CHECK(cost[size(p * entries + e)] == T{1} - cosine);
      }
    }
  });
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const Shape& shape : tests::shapes()) {
    costs_are_written<T>(shape, engine);
    if (std::max(shape.rows, shape.columns) > lwfm::kMaxAssignedPositions) continue;
    const int all = std::min(shape.rows, shape.columns);
    for (const int top_k : {1, (1 + all) / 2, all}) equals_the_core<T>(shape, top_k, engine);
  }
  equals_the_core<T>({1, 2, 32, 32}, 5, engine);
  equals_the_core<T>({3, 1, 2, 31}, 2, engine);
  ties_and_nan<T>(engine);
}

}  // namespace

int main() {
  std::mt19937_64 engine(19);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
