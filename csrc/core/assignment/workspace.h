// Memory of one solving thread. It grows to the largest problem seen and is reused for the next
// one, so a batch allocates nothing per problem.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/assignment/small_state.h"
#include "core/interruption.h"

namespace lwfm {

// An array inside a workspace.
class Numbers {
 public:
  Numbers() = default;
  Numbers(double* first, std::size_t count) : first_(first), count_(count) {}
  double* data() { return first_; }
  double* begin() { return first_; }
  double* end() { return first_ + count_; }
  double& operator[](std::int64_t k) { return first_[k]; }

 private:
  double* first_ = nullptr;
  std::size_t count_ = 0;
};

// An uninitialized matrix: a large one is first touched row by row, where the solver can be
// interrupted.
template <class T>
class Entries {
 public:
  T* reserve(std::int64_t rows, std::int64_t columns) {
    const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
    if (count > count_) {
      count_ = 0;
      memory_.reset();
      memory_.reset(new T[count]);
      count_ = count;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<T[]> memory_;
  std::size_t count_ = 0;
};

struct Workspace {
  Workspace() = default;
  Workspace(const Workspace&) = delete;  // its arrays point into its memory
  Workspace& operator=(const Workspace&) = delete;

  // Whether v holds duals that prove something, also where a call ended early.
  bool has_duals = false;
  // One entry per column (the longer side).
  Numbers v;                                // column duals, at most 0 where a column may stay free
  Numbers distance;                         // shortest alternating path found so far; +inf: scanned
  Numbers nearest;                          // smallest distances of each block of columns
  Numbers predecessor;                      // row before it on that path, as a double
  std::vector<std::int64_t> column_to_row;  // -1: the column is free
  // One entry per row (the shorter side).
  std::vector<std::int64_t> row_to_column;  // -1: the row is not assigned yet
  std::vector<std::int64_t> free_rows;      // rows to assign in this pass
  std::vector<std::int64_t> displaced;      // rows left for the next pass
  std::vector<std::int64_t> scanned;        // columns of the search tree in order of discovery
  std::vector<double> scanned_v;            // their duals before the search
  std::vector<double> scanned_distance;     // their distances
  // Entries rewritten row by row: transposed, unevenly strided or integer input only.
  Entries<float> entries_float;
  Entries<double> entries_double;
  // The state of problems of few columns, which use nothing of the above.
  SmallState small;
  // Of the thread that works here.
  Watch watch;

  void reserve(std::int64_t rows, std::int64_t columns) {
    const auto n = static_cast<std::size_t>(rows);
    const auto m = static_cast<std::size_t>(columns);
    has_duals = false;
    reserve_numbers(m);
    std::fill_n(v.data(), m, 0.0);
    column_to_row.assign(m, -1);
    row_to_column.assign(n, -1);
    free_rows.clear();
    free_rows.reserve(n);
    displaced.clear();
    displaced.reserve(n);
    scanned.resize(m);
    scanned_v.resize(m);
    scanned_distance.resize(m);
  }

  Entries<float>& entries(float) { return entries_float; }
  Entries<double>& entries(double) { return entries_double; }

 private:
  // A search runs through these arrays side by side. They begin on cache lines, and not at the same
  // place of a page: processors take addresses that differ by whole pages for the same one at
  // first.
  void reserve_numbers(std::size_t count) {
    constexpr std::size_t kCacheLine = 64 / sizeof(double), kPage = 4096 / sizeof(double);
    constexpr std::size_t kShift = kPage / 4 + kCacheLine;
    const std::size_t pitch = count + (kPage + kShift - count % kPage) % kPage;
    memory_.resize(4 * pitch + kCacheLine);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data()) / sizeof(double);
    double* start = memory_.data() + (kCacheLine - address % kCacheLine) % kCacheLine;
    for (Numbers* numbers : {&v, &distance, &predecessor, &nearest}) {
      *numbers = {start, count};
      start += pitch;
    }
  }

  std::vector<double> memory_;
};

// The workspace of the calling thread; within a call that uses it, for example in a signal handler
// that solves problems itself, a new one.
class WorkspaceOfThread {
 public:
  WorkspaceOfThread() : nested_(std::exchange(in_use(), true)) {
    if (nested_) own_.emplace();
  }
  ~WorkspaceOfThread() { in_use() = nested_; }
  WorkspaceOfThread(const WorkspaceOfThread&) = delete;
  WorkspaceOfThread& operator=(const WorkspaceOfThread&) = delete;

  Workspace& operator*() {
    thread_local Workspace of_thread;
    return nested_ ? *own_ : of_thread;
  }

 private:
  static bool& in_use() {
    thread_local bool used = false;
    return used;
  }

  const bool nested_;
  std::optional<Workspace> own_;
};

}  // namespace lwfm
