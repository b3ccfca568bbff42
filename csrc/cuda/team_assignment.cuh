// A warp or a block solves an assignment problem of any size; its state is in shared or global
// memory.
//
// The algorithm is that of reduction.h and shortest_path.h in core/assignment, in the same
// arithmetic. Among equally good answers the choice is deterministic, a constant matrix gives the
// identity, but it need not be the core's, which has more ways to begin. Per-column state belongs
// to one thread, so only what the whole team or its first thread reads needs a barrier.
#pragma once

#include <cstdint>

#include "core/assignment/limits.h"
#include "core/assignment/status.h"
#include "core/host_device.h"
#include "cost_view.cuh"
#include "team.cuh"

namespace lwfm {

struct TeamState {
  double *v, *distance;                           // [columns]
  int *predecessor, *discovered, *row_of_column;  // [columns]
  int *column_of_row, *free_rows, *displaced;     // [rows]

  // Of a problem with rows <= columns; a multiple of 8.
  static LWFM_HOST_DEVICE std::int64_t bytes(std::int64_t rows, std::int64_t columns) {
    return (28 * columns + 12 * rows + 7) / 8 * 8;
  }

  __device__ TeamState(void* memory, std::int64_t rows, std::int64_t columns) {
    v = static_cast<double*>(memory);
    distance = v + columns;
    predecessor = reinterpret_cast<int*>(distance + columns);
    discovered = predecessor + columns;
    row_of_column = discovered + columns;
    column_of_row = row_of_column + columns;
    free_rows = column_of_row + rows;
    displaced = free_rows + rows;
  }
};

template <class Cost, class Team>
class TeamSolver {
 public:
  __device__ TeamSolver(const Cost& cost, int rows, int columns, const TeamState& state,
                        const Team& team)
      : cost_(cost), state_(state), team_(team), rows_(rows), columns_(columns) {}

  __device__ Status solve() {
    Status status = reduce_columns();
    if (status != Status::ok) return status;
    for (int i = team_.rank(); i < rows_; i += team_.size()) {
      state_.column_of_row[i] = -1;
      state_.free_rows[i] = i;
    }
    for (int j = team_.rank(); j < columns_; j += team_.size()) state_.row_of_column[j] = -1;
    team_.sync();
    int* free_rows = state_.free_rows;
    int* displaced = state_.displaced;
    int count = reduce_augmenting_rows(free_rows, rows_, displaced);
    count = reduce_augmenting_rows(displaced, count, free_rows);
    for (int k = 0; k < count && status == Status::ok; ++k) status = augment(free_rows[k]);
    return status;
  }

  // The costs as the solver reads them, scaled if they are huge; the duals are for these.
  __device__ const Cost& cost() const { return cost_; }

 private:
  static constexpr Key kLast = 0x7fffffffffffffffLL;
  // In `discovered`: in the search tree; not within reach yet. Else the scan that reached it.
  static constexpr int kTaken = -1, kFar = 0x7fffffff;

  // Looks at every entry. In a square problem v[j] becomes the smallest entry of column j; in a
  // rectangle, where some columns stay free, every v starts at zero.
  __device__ Status reduce_columns() {
    EntryFlags flags;
    bool forbidden = false;
    const bool square = rows_ == columns_;
    for (int j = team_.rank(); j < columns_; j += team_.size()) {
      double smallest = kInfinity;
      for (int i = 0; i < rows_; ++i) {
        const double c = cost_(i, j);
        flags.add(c);
        smallest = c < smallest ? c : smallest;
      }
      forbidden = forbidden || (square && smallest == kInfinity);
      state_.v[j] = square ? smallest : 0.0;
    }
    // The gravest finding of any thread, and whether any has seen a huge entry.
    const Key finding = flags.invalid ? 0 : forbidden ? 1 : 2;
    const Candidate all = team_.min({finding, 0});
    if (all.key == 0) return Status::invalid_entry;
    if (all.key == 1) return Status::infeasible;
    if (team_.min({flags.huge ? 0 : 1, 0}).key == 0) shrink();
    return Status::ok;
  }

  __device__ void shrink() {
    cost_.factor *= kShrink;
    for (int j = team_.rank(); j < columns_; j += team_.size()) state_.v[j] *= kShrink;
  }

  __device__ void assign(int row, int column) {
    state_.column_of_row[row] = column;
    state_.row_of_column[column] = row;
  }

  // One pass of augmenting row reduction over `count` rows; those without a column afterwards go to
  // `left`, and their number is returned. The number of steps is bounded.
  __device__ int reduce_augmenting_rows(const int* rows, int count, int* left) {
    long long budget = 3LL * count;
    int number = 0;
    for (int k = 0; k < count; ++k) {
      int row = rows[k];
      bool strict = true;
      while (row >= 0 && strict && budget-- > 0) row = reduce_row(row, strict);
      if (row < 0) continue;
      if (team_.rank() == 0) left[number] = row;
      ++number;
    }
    team_.sync();
    return number;
  }

  // The row takes its best column, whose dual drops until the second best is as good; `strict`
  // tells whether it dropped. Returns the row that lost its column, -1 if none did, or the row
  // itself, unassigned, if there was nothing to gain.
  __device__ int reduce_row(int row, bool& strict) {
    Candidate own{kInfinityKey, kLast};
    Key own_second = kInfinityKey;
    for (int j = team_.rank(); j < columns_; j += team_.size()) {
      const Key reduced = key_of(cost_(row, j) - state_.v[j]);
      if (reduced < own.key) {
        own_second = own.key;
        own = {reduced, j};
      } else if (reduced < own_second) {
        own_second = reduced;
      }
    }
    const Candidate best = team_.min(own);
    const Key others = own.order == best.order ? own_second : own.key;
    const Key second = team_.min({others, 0}).key;
    strict = false;
    if (second == kInfinityKey) return row;
    auto column = static_cast<int>(best.order);
    const double v = state_.v[column];
    const double lowered = v - (value_of(second) - value_of(best.key));
    strict = lowered < v;
    if (!strict) column = first_free(row, best.key);
    if (column < 0) return row;
    const int loser = state_.row_of_column[column];
    team_.sync();
    if (team_.rank() == 0) {
      if (strict) state_.v[column] = lowered;
      if (loser >= 0) state_.column_of_row[loser] = -1;
      assign(row, column);
    }
    team_.sync();
    return loser;
  }

  // The first free column whose reduced cost is `value`; -1 if there is none.
  __device__ int first_free(int row, Key value) {
    Candidate own{0, kLast};
    for (int j = team_.rank(); j < columns_ && own.order == kLast; j += team_.size()) {
      const bool free = state_.row_of_column[j] < 0;
      if (free && key_of(cost_(row, j) - state_.v[j]) == value) own.order = j;
    }
    const Key first = team_.min(own).order;
    return first == kLast ? -1 : static_cast<int>(first);
  }

  // Assigns a free row along the shortest alternating path to a free column and moves the duals so
  // that every assigned pair stays tight. Infeasible if no free column can be reached.
  __device__ Status augment(int start) {
    for (int j = team_.rank(); j < columns_; j += team_.size()) {
      state_.distance[j] = kInfinity;
      state_.discovered[j] = kFar;
    }
    double reached = -kInfinity, length = 0.0;
    int row = start, column = -1;
    for (int scan = 1;; ++scan) {
      const Candidate nearest = team_.min(relax(row, length, reached, scan));
      if (nearest.key == kInfinityKey) return Status::infeasible;
      reached = value_of(nearest.key);
      column = static_cast<int>(nearest.order & 0x7fffffff);
      row = state_.row_of_column[column];
      if (row < 0) break;
      length = (cost_(row, column) - state_.v[column]) - reached;
      if (column % team_.size() == team_.rank()) {
        state_.distance[column] = reached;
        state_.discovered[column] = kTaken;
      }
    }
    move_duals(reached);
    team_.sync();
    if (team_.rank() == 0) flip(start, column);
    team_.sync();
    return Status::ok;
  }

  // Shortens distances by way of `row`, and returns the thread's nearest column outside the tree.
  // Columns within `reached` count as equally near: a free one comes first, then the one that an
  // earlier scan discovered, then the lower index.
  __device__ Candidate relax(int row, double length, double reached, int scan) {
    Candidate nearest{kInfinityKey, kLast};
    for (int j = team_.rank(); j < columns_; j += team_.size()) {
      int discovered = state_.discovered[j];
      if (discovered == kTaken) continue;
      double distance = state_.distance[j];
      if (discovered == kFar && distance <= reached) discovered = scan - 1;
      const double candidate = (cost_(row, j) - state_.v[j]) - length;
      if (candidate < distance) {
        distance = candidate;
        state_.distance[j] = candidate;
        state_.predecessor[j] = row;
      }
      if (discovered == kFar && distance <= reached) discovered = scan;
      state_.discovered[j] = discovered;
      const Key assigned = state_.row_of_column[j] < 0 ? 0 : 1;
      const Candidate here{key_of(distance < reached ? reached : distance),
                           (assigned << 62) | (static_cast<Key>(discovered) << 31) | j};
      if (precedes(here, nearest)) nearest = here;
    }
    return nearest;
  }

  __device__ void move_duals(double reached) {
    for (int j = team_.rank(); j < columns_; j += team_.size()) {
      if (state_.discovered[j] == kTaken) state_.v[j] += state_.distance[j] - reached;
    }
  }

  __device__ void flip(int start, int column) {
    for (int row = -1; row != start;) {
      row = state_.predecessor[column];
      state_.row_of_column[column] = row;
      const int next = state_.column_of_row[row];
      state_.column_of_row[row] = column;
      column = next;
    }
  }

  Cost cost_;
  const TeamState state_;
  Team team_;
  const int rows_, columns_;
};

}  // namespace lwfm
