// Work sharing: every item once, whatever the numbers of threads and the length of a piece.
#include <atomic>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/assignment.h"
#include "core/thread_pool.h"

namespace {

void every_item_is_done_once() {
  for (const std::int64_t count : {0, 1, 2, 7, 100, 1000}) {
    for (const std::int64_t piece : {1, 3, 64, 5000}) {
      for (const std::int64_t threads : {1, 2, 5}) {
        std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
        lwfm::share_work(count, piece, threads, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t k = begin; k < end; ++k) ++visits[static_cast<std::size_t>(k)];
        });
        for (const auto& visit : visits) CHECK(visit == 1);
      }
    }
  }
}

// Solving in parallel, each thread with its own workspace, gives what one thread gives.
void threads_agree() {
  constexpr std::int64_t kCount = 200, kSize = 9;
  std::mt19937_64 engine(3);
  std::vector<float> costs(kCount * kSize * kSize);
  for (float& cost : costs) cost = static_cast<float>(engine() % 20);
  std::vector<std::int64_t> expected;
  for (const std::int64_t threads : {1, 2, 4}) {
    std::vector<std::int64_t> assignment(kCount * kSize);
    lwfm::share_work(kCount, 8, threads, [&](std::int64_t begin, std::int64_t end) {
      lwfm::Workspace workspace;
      for (std::int64_t b = begin; b < end; ++b) {
        const lwfm::CostMatrix<float> cost{costs.data() + b * kSize * kSize, kSize, kSize, kSize,
                                           1};
        lwfm::solve(cost, {}, workspace, assignment.data() + b * kSize);
      }
    });
    if (threads == 1) expected = assignment;
    CHECK(assignment == expected);
  }
}

}  // namespace

int main() {
  every_item_is_done_once();
  threads_agree();
  return check::result();
}
