// How the caller of a long computation ends it early, for example after Ctrl-C.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace lwfm {

// The source of one call's interruption, shared by the threads that work for it. Only the thread
// that made the call polls; the others see the result.
class Interruption {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kPeriod{50};

  // `poll` returns whether to end the call and must not throw; null: never. It is called on the
  // constructing thread at most once per kPeriod, and not again after it has returned true. The
  // call ends at the deadline too, if there is one.
  explicit Interruption(bool (*poll)(), Clock::time_point deadline = Clock::time_point::max())
      : poll_(poll), deadline_(deadline), caller_(std::this_thread::get_id()) {}

  // Whether update() on this thread may ever do more than requested().
  bool polls() const {
    return (poll_ != nullptr || deadline_ != Clock::time_point::max()) &&
           std::this_thread::get_id() == caller_;
  }

  bool requested() const { return requested_.load(std::memory_order_relaxed); }

  // Whether the deadline ended the call; for the calling thread.
  bool timed_out() const { return timed_out_; }

  // Polls if it is time to; returns whether to end the call.
  bool update() {
    if (requested() || !polls()) return requested();
    const Clock::time_point now = Clock::now();
    if (next_ == Clock::time_point{}) next_ = std::min(now + kPeriod, deadline_);
    if (now < next_) return false;
    timed_out_ = now >= deadline_;
    const bool request = timed_out_ || (poll_ != nullptr && poll_());
    if (request) requested_.store(true, std::memory_order_relaxed);
    next_ = std::min(Clock::now() + kPeriod, deadline_);
    return request;
  }

 private:
  bool (*const poll_)();
  const Clock::time_point deadline_;
  const std::thread::id caller_;
  Clock::time_point next_{};
  bool timed_out_ = false;
  std::atomic<bool> requested_{false};
};

// Ends a computation from inside; the solvers turn it into a status.
struct Interrupted {};

// Counts the work of one thread, so that it looks for an interruption about once per millisecond.
class Watch {
 public:
  Watch() = default;
  explicit Watch(Interruption* interruption) : interruption_(interruption) {}

  // Keeps the count: the problems of a batch may be small.
  void begin(Interruption* interruption) { interruption_ = interruption; }

  // After reading so many entries: whether to end the call.
  bool must_stop(std::int64_t entries) {
    left_ -= entries;
    if (left_ >= 0) return false;
    left_ = kEntries;
    return is_requested(interruption_);
  }

  void count(std::int64_t entries) {
    if (must_stop(entries)) throw Interrupted{};
  }

 private:
  static constexpr std::int64_t kEntries = std::int64_t{1} << 20;

  __attribute__((noinline, cold)) static bool is_requested(Interruption* interruption) {
    return interruption != nullptr && interruption->update();
  }

  Interruption* interruption_ = nullptr;
  std::int64_t left_ = kEntries;
};

// Counts the rows of a loop, many short ones at a time: the loop should not become slower.
class RowWatch {
 public:
  RowWatch(Watch& watch, std::int64_t length)
      : watch_(watch), length_(length), last_(length < kLongRow ? kShortRows - 1 : 0) {}

  // After row number `row`, from 0.
  void count(std::int64_t row) {
    if ((row & last_) == last_) watch_.count((last_ + 1) * length_);
  }

 private:
  static constexpr std::int64_t kLongRow = std::int64_t{1} << 16;
  static constexpr std::int64_t kShortRows = 256;  // a power of two

  Watch& watch_;
  std::int64_t length_;
  std::int64_t last_;
};

}  // namespace lwfm
