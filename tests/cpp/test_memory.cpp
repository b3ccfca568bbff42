// A thread's memory beyond the caller's matrix is linear in rows + columns, and is allocated once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <random>

#include "check.h"
#include "core/assignment.h"
#include "problems.h"

namespace {

std::size_t allocated = 0;  // bytes, in all

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

}  // namespace

void* operator new(std::size_t size) {
  allocated += size;
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
  return check::result();
}
