// Work sharing over threads for callers that have no thread pool of their own. The threads sleep
// between calls and keep their thread-local workspaces.
#pragma once

#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "core/interruption.h"

namespace lwfm {

// The processor on which the calling thread runs; -1 where that is unknown.
inline int current_processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Moves the calling thread to another processor than this one, if it may use another. A woken
// thread often starts on the processor of the thread that woke it, and Linux may leave both there
// for a long time, one waiting for the other, while another processor is idle.
inline void leave_processor(int processor) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (processor < 0 || processor != sched_getcpu()) return;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) == 0) return;
  if (sched_setaffinity(0, sizeof others, &others) == 0) {
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
#else
  (void)processor;
#endif
}

class ThreadPool {
 public:
  // The pool of this process. It is created on first use and never destroyed: its threads sleep
  // until the process ends. A forked child, which has none of its parent's threads, gets a new one.
  static ThreadPool& instance() {
    static std::atomic<ThreadPool*> current{nullptr};
    ThreadPool* pool = current.load();
    if (pool != nullptr && pool->process_ == getpid()) return *pool;
    auto* fresh = new ThreadPool;
    if (current.compare_exchange_strong(pool, fresh)) return *fresh;
    delete fresh;
    return *pool;
  }

  // Runs `work`, which must not throw, on the calling thread and on up to `helpers` others, and
  // returns when all of them have. A call that finds the pool in use runs alone. While the calling
  // thread waits for the others it updates `interruption`.
  void run(std::int64_t helpers, const std::function<void()>& work,
           Interruption* interruption = nullptr) {
    if (helpers < 1 || in_use_.exchange(true, std::memory_order_acquire)) return work();
    grow(helpers);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      places_ = helpers;
      processor_ = current_processor();
    }
    wake_.notify_all();
    work();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      places_ = 0;  // threads that have not woken up by now are not needed
      wait_for_helpers(lock, interruption);
    }
    in_use_.store(false, std::memory_order_release);
  }

 private:
  ThreadPool() : process_(getpid()) {}

  void wait_for_helpers(std::unique_lock<std::mutex>& lock, Interruption* interruption) {
    const auto none_busy = [this] { return busy_ == 0; };
    if (interruption == nullptr) return done_.wait(lock, none_busy);
    while (!done_.wait_for(lock, Interruption::kPeriod, none_busy)) {
      lock.unlock();
      interruption->update();
      lock.lock();
    }
  }

  // Where the system refuses a thread, or memory for one, the others do its share.
  void grow(std::int64_t helpers) {
    try {
      for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return places_ > 0; });
      --places_;
      ++busy_;
      const std::function<void()>& work = *work_;
      const int of_caller = processor_;
      lock.unlock();
      leave_processor(of_caller);
      work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  const pid_t process_;
  // A flag, not a mutex: a signal handler may call the pool again from the thread that uses it.
  std::atomic<bool> in_use_{false};
  std::int64_t threads_ = 0;
  std::mutex mutex_;  // guards everything below
  std::condition_variable wake_, done_;
  const std::function<void()>* work_ = nullptr;
  std::int64_t places_ = 0;
  std::int64_t busy_ = 0;
  int processor_ = -1;  // of the caller
};

// Calls work(begin, end) on pieces of 0..count, each at most `piece` long, from up to `threads`
// threads, the calling one among them. `work` must not throw. One piece starts no thread. After an
// interruption no further piece is started.
template <class Work>
void share_work(std::int64_t count, std::int64_t piece, std::int64_t threads, const Work& work,
                Interruption* interruption = nullptr) {
  const std::int64_t pieces = (count + piece - 1) / piece;
  std::atomic<std::int64_t> next{0};
  const auto take_pieces = [&] {
    for (;;) {
      const std::int64_t begin = next.fetch_add(piece, std::memory_order_relaxed);
      if (begin >= count || (interruption != nullptr && interruption->requested())) return;
      work(begin, std::min(begin + piece, count));
    }
  };
  const std::int64_t helpers = std::min(threads, pieces) - 1;
  if (helpers < 1) return take_pieces();
  ThreadPool::instance().run(helpers, take_pieces, interruption);
}

}  // namespace lwfm
