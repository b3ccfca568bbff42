// Synchronization of a few threads that take every step of one problem together, each for a part
// of it. They exchange one message each per step and spin while they wait, since a step is shorter
// than waking a thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

namespace lwfm {

// Tells the processor that this thread only waits.
inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

using Clock = std::chrono::steady_clock;

// Waits until `ready`. Where that takes long, some others do not run: the processor is offered to
// them. Returns how long that took, zero as a rule.
template <class Ready>
Clock::duration wait_until(const Ready& ready) {
  // Some tens of microseconds. Pauses are rare: hypervisors take a processor away from a thread
  // that does little else, and then the others wait for it in turn.
  constexpr int kLooks = 20000, kLooksPerPause = 256;
  for (int look = 1; look <= kLooks; ++look) {
    if (ready()) return Clock::duration::zero();
    if (look % kLooksPerPause == 0) pause_briefly();
  }
  const Clock::time_point begin = Clock::now();
  while (!ready()) std::this_thread::yield();
  return Clock::now() - begin;
}

// The place of one member, known to its thread alone.
struct Seat {
  std::int64_t number = 0;  // the leader has 0
  std::uint64_t step = 0;
  Clock::duration waited{};  // while some others did not run
};

template <class Message>
class Team {
 public:
  explicit Team(std::int64_t size)
      : size_(size), slots_(new Slot[2 * static_cast<std::size_t>(size)]) {}

  std::int64_t size() const { return size_; }

  // A helper, one of at most size - 1, takes a seat and waits; false if the team never started.
  bool join(Seat& seat) {
    seat.number = joined_.fetch_add(1, std::memory_order_acq_rel) + 1;
    wait_until([this] { return phase_.load(std::memory_order_acquire) != Phase::gathering; });
    return phase_.load(std::memory_order_relaxed) == Phase::started;
  }

  // For the leader: whether all helpers wait; lets them begin; or sends those who come away.
  bool complete() const { return joined_.load(std::memory_order_acquire) == size_ - 1; }
  void start() { phase_.store(Phase::started, std::memory_order_release); }
  void dismiss() { phase_.store(Phase::dismissed, std::memory_order_release); }

  // Before the work of a step: the message of its end is wanted at once.
  void prepare(const Seat& seat) { __builtin_prefetch(&slot(seat.number, seat.step + 1), 1); }

  // Tells the others, and waits until each has told. What a member wrote before is visible after.
  void exchange(Seat& seat, const Message& message) {
    ++seat.step;
    Slot& own = slot(seat.number, seat.step);
    own.message = message;
    own.step.store(seat.step, std::memory_order_release);
    for (std::int64_t number = 0; number < size_; ++number) {
      const auto& told = slot(number, seat.step).step;
      seat.waited += wait_until([&] { return told.load(std::memory_order_acquire) == seat.step; });
    }
  }

  // What a member told in the last exchange; valid until the next one.
  const Message& told(const Seat& seat, std::int64_t number) const {
    return slot(number, seat.step).message;
  }

 private:
  enum class Phase { gathering, started, dismissed };

  // One cache line, so that a message passes in one transfer. Each member has two in turn: when it
  // fills one again, all have told since, so nobody reads it any more.
  struct alignas(64) Slot {
    std::atomic<std::uint64_t> step{0};
    Message message;
  };
  static_assert(sizeof(Slot) == 64, "a message fills one cache line at most");

  Slot& slot(std::int64_t number, std::uint64_t step) const {
    return slots_[2 * static_cast<std::size_t>(number) + step % 2];
  }

  const std::int64_t size_;
  std::atomic<std::int64_t> joined_{0};
  std::atomic<Phase> phase_{Phase::gathering};
  const std::unique_ptr<Slot[]> slots_;
};

}  // namespace lwfm
