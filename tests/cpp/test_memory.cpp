// A thread's memory beyond the caller's matrix is linear in rows + columns, and is allocated once.
// Work is done by the calling thread where there is no memory for others.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <random>

#include "check.h"
#include "core/assignment.h"
#include "core/thread_pool.h"
#include "problems.h"

namespace {

std::size_t allocated = 0;  // bytes, in all
bool exhausted = false;     // whether there is no more memory

template <class T>
void needs_linear_memory(std::int64_t rows, std::int64_t columns) {
  constexpr std::size_t kFixed = 65536, kPerLine = 80;
  std::mt19937_64 engine(5);
  const auto first = problems::make<T>(rows, columns, [&] { return engine() % 1000; });
  const auto second = problems::make<T>(rows, columns, [&] { return engine() % 1000000; });
  std::vector<std::int64_t> assignment(static_cast<std::size_t>(rows));
  lwfm::Workspace workspace;
  allocated = 0;
  CHECK(lwfm::solve(first.cost(), {}, workspace, assignment.data()) == lwfm::Status::ok);
  CHECK(allocated <= kFixed + kPerLine * static_cast<std::size_t>(rows + columns));
  allocated = 0;
  CHECK(lwfm::solve(second.cost(), {}, workspace, assignment.data()) == lwfm::Status::ok);
  CHECK(allocated == 0);
}

void works_alone_without_memory() {
  lwfm::ThreadPool& pool = lwfm::ThreadPool::instance();
  int calls = 0;
  const std::function<void()> work = [&] { ++calls; };
  exhausted = true;
  pool.run(3, work);
  pool.run(3, work);  // the pool is not left in use
  exhausted = false;
  CHECK(calls == 2);
}

}  // namespace

void* operator new(std::size_t size) {
  allocated += size;
  if (exhausted) throw std::bad_alloc();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main() {
  for (const std::int64_t n : {9, 32, 33, 200, 1024}) {
    needs_linear_memory<float>(n, n);
    needs_linear_memory<double>(n, n);
    needs_linear_memory<float>(n, 2 * n);
  }
  works_alone_without_memory();
  return check::result();
}
