// The least that a unit test needs: CHECK reports and counts, and main returns the count.
#pragma once

#include <cstdio>

namespace check {

inline int failures = 0;

inline void report(bool passed, const char* what, const char* file, int line) {
  if (passed) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
}

inline int result() {
  if (failures == 0) std::puts("all checks passed");
  return failures == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(...) check::report(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
