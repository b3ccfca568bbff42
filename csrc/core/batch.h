// Work sharing over threads for callers that have no thread pool of their own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace lwfm {

// Calls work(begin, end) on pieces of 0..count, each at most `piece` long, from up to `threads`
// threads, the calling one among them. `work` must not throw. Where the system refuses a thread,
// the others do its share.
template <class Work>
void share_work(std::int64_t count, std::int64_t piece, std::int64_t threads, const Work& work) {
  std::atomic<std::int64_t> next{0};
  const auto take_pieces = [&] {
    for (;;) {
      const std::int64_t begin = next.fetch_add(piece, std::memory_order_relaxed);
      if (begin >= count) return;
      work(begin, std::min(begin + piece, count));
    }
  };
  const std::int64_t pieces = (count + piece - 1) / piece;
  std::vector<std::thread> others;
  try {
    for (std::int64_t k = 1; k < std::min(threads, pieces); ++k) others.emplace_back(take_pieces);
  } catch (const std::system_error&) {
  }
  take_pieces();
  for (std::thread& other : others) other.join();
}

}  // namespace lwfm
