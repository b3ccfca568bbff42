// Batches of problems on torch's threads, so that Ctrl-C ends the call.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "core/interruption.h"

namespace lwfm {

// Counts the problems that torch's threads have left. The caller waits for them here rather than in
// torch, so that Ctrl-C ends its waiting too.
class Progress {
 public:
  Progress(std::int64_t problems, Interruption& interruption)
      : left_(problems), interruption_(interruption) {}

  // After this thread's share.
  void finish(std::int64_t problems) {
    std::unique_lock<std::mutex> lock(mutex_);
    left_ -= problems;
    if (left_ == 0) return done_.notify_one();
    if (!interruption_.polls()) return;
    while (!done_.wait_for(lock, Interruption::kPeriod, [this] { return left_ == 0; })) {
      lock.unlock();
      interruption_.update();
      lock.lock();
    }
  }

 private:
  std::int64_t left_;  // guarded by mutex_
  Interruption& interruption_;
  std::mutex mutex_;
  std::condition_variable done_;
};

// Calls solve(begin, end) for parts of `count` problems, of at least `grain` each. `solve` must not
// throw, and must leave what it has not begun when the interruption is requested.
template <class Solve>
void solve_on_threads(std::int64_t count, std::int64_t grain, Interruption& interruption,
                      const Solve& solve) {
  Progress progress(count, interruption);
  torch::stable::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    solve(begin, end);
    progress.finish(end - begin);
  });
}

}  // namespace lwfm
