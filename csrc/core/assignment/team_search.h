// Shortest augmenting paths of one large problem by several threads. Each owns a range of columns,
// scans every row of the search there, and sends the others the nearest columns it found; all take
// the same decisions, so the answer is that of one thread, bit for bit.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/limits.h"
#include "core/assignment/search_tree.h"
#include "core/assignment/shortest_path.h"
#include "core/assignment/status.h"
#include "core/assignment/team.h"
#include "core/assignment/workspace.h"
#include "core/thread_pool.h"

namespace lwfm {

constexpr std::int64_t kTeamColumns =
    1280;                              // per member: fewer are scanned faster than a message passes
constexpr std::int64_t kTeamSize = 8;  // beyond, messages cost more than they save

// How many of `threads` threads work on a problem of so many columns.
inline std::int64_t team_size(std::int64_t columns, std::int64_t threads) {
  return std::max<std::int64_t>(1, std::min({threads, columns / kTeamColumns, kTeamSize}));
}

// A column within reach, with its dual.
struct Reached {
  std::int64_t column;
  double dual;
};

// The message of a member that has scanned a row: its smallest distance, and its columns within
// reach, in index order. Nearly always there is at most one.
struct Found {
  double smallest = kInfinity;
  std::int64_t count = 0;
  Reached first{};
  const Reached* all = nullptr;
  bool leave = false;  // from the leader: leave the team after this search, or end the call
};

// Shared by the members.
template <class T>
struct TeamTask {
  TeamTask(const DenseCost<T>& problem, Workspace& of_leader, std::int64_t size)
      : cost(problem), leader(of_leader), team(size) {}

  const DenseCost<T>& cost;
  Workspace& leader;
  std::size_t first_row = 0;  // of the free rows, the first that the team assigns
  std::array<Numbers*, kTeamSize> predecessors{};
  Team<Found> team;
};

template <class Scan, class T>
class TeamMember {
 public:
  TeamMember(TeamTask<T>& task, Workspace& own)
      : task_(task), cost_(task.cost), own_(own), tree_(own) {
    const std::int64_t size = task.team.size();
    share_ = ((cost_.columns + size - 1) / size + kGrain - 1) / kGrain * kGrain;
    for (auto& list : lists_) list.resize(static_cast<std::size_t>(share_));
  }

  Seat& seat() { return seat_; }

  // Assigns free rows in turn, all members alike, until none is left or the leader is held up.
  // `next` counts them. If it returns ok, the leader's workspace holds all duals.
  Status assign_rows(std::size_t& next) {
    begin_ = std::min(seat_.number * share_, cost_.columns);
    end_ = std::min(begin_ + share_, cost_.columns);
    take_over();
    const Clock::time_point began = Clock::now();
    bool leave = false;
    for (next = task_.first_row; next < own_.free_rows.size() && !leave; ++next) {
      const Status status = augment(own_.free_rows[next]);
      if (status != Status::ok) return status;
      Found word;
      word.leave = is_held_up(began);
      task_.team.exchange(seat_, word);  // until here, others follow the path through our columns
      leave = task_.team.told(seat_, 0).leave;
    }
    if (!is_leader())
      std::copy(own_.v.data() + begin_, own_.v.data() + end_, task_.leader.v.data() + begin_);
    task_.team.exchange(seat_, {});
    return Status::ok;
  }

 private:
  static constexpr std::int64_t kGrain = 64;  // shares begin where blocks of columns do

  bool is_leader() const { return seat_.number == 0; }

  // Whether much of the time was spent waiting for members that did not run, as on processors with
  // other work to do.
  bool is_held_up(Clock::time_point began) const {
    return seat_.waited > std::chrono::milliseconds(1) && 4 * seat_.waited > Clock::now() - began;
  }

  // Starts from what the leader has reached.
  void take_over() {
    if (!is_leader()) {
      const Workspace& leader = task_.leader;
      std::copy(task_.leader.v.data() + begin_, task_.leader.v.data() + end_,
                own_.v.data() + begin_);
      own_.column_to_row = leader.column_to_row;
      own_.row_to_column = leader.row_to_column;
      own_.free_rows = leader.free_rows;
    }
    task_.predecessors[static_cast<std::size_t>(seat_.number)] = &own_.predecessor;
    task_.team.exchange(seat_, {});
  }

  // As PathSearch::augment.
  Status augment(std::int64_t start) {
    tree_.clear();
    std::fill(own_.distance.data() + begin_, own_.distance.data() + end_, kInfinity);
    double smallest = relax(start, 0.0, -kInfinity);
    double reached = smallest;
    std::int64_t sink = -1;
    for (std::int64_t next = 0;; ++next) {
      if (interrupted_) {
        tree_.restore_duals(begin_, end_);
        return Status::interrupted;
      }
      if (next == tree_.size() || smallest <= reached) {
        if (smallest > reached) reached = smallest;
        if (smallest == kInfinity && next == tree_.size()) return Status::infeasible;
        sink = collect(reached);
        if (sink >= 0) break;
      }
      const std::int64_t row = own_.column_to_row[tree_.column(next)];
      smallest = relax(row, path_length(cost_, tree_, next, row), reached);
    }
    tree_.move_duals(reached, begin_, end_);
    tree_.flip(start, sink, [this](std::int64_t column) {
      return (*task_.predecessors[static_cast<std::size_t>(column / share_)])[column];
    });
    return Status::ok;
  }

  // Scans a row in our columns and sends the columns within reach: at most at distance `reached`,
  // or the nearest. Returns the smallest distance among all columns.
  double relax(std::int64_t row, double length, double reached) {
    task_.team.prepare(seat_);
    Found found;
    found.smallest = Scan::relax(cost_.row(row) + begin_, cost_.factor, own_.v.data() + begin_,
                                 length, static_cast<double>(row), own_.distance.data() + begin_,
                                 own_.predecessor.data() + begin_, own_.nearest.data() + begin_ / 8,
                                 end_ - begin_);
    if (found.smallest < kInfinity) list_reached(std::max(found.smallest, reached), found);
    if (is_leader()) found.leave = own_.watch.must_stop(share_);
    task_.team.exchange(seat_, found);
    interrupted_ = task_.team.told(seat_, 0).leave;
    double smallest = kInfinity;
    for (std::int64_t member = 0; member < task_.team.size(); ++member) {
      smallest = std::min(smallest, task_.team.told(seat_, member).smallest);
    }
    return smallest;
  }

  void list_reached(double reached, Found& found) {
    std::vector<Reached>& list = lists_[(seat_.step + 1) % 2];  // others may still read the other
    const double* distance = own_.distance.data() + begin_;
    const double* nearest = own_.nearest.data() + begin_ / 8;
    const std::int64_t columns = end_ - begin_;
    for (std::int64_t j = Scan::next_within(distance, nearest, reached, 0, columns); j < columns;
         j = Scan::next_within(distance, nearest, reached, j + 1, columns)) {
      list[static_cast<std::size_t>(found.count++)] = {begin_ + j, own_.v[begin_ + j]};
    }
    found.first = list.front();
    found.all = list.data();
  }

  // As PathSearch::collect, from what the members told.
  std::int64_t collect(double reached) {
    for (std::int64_t member = 0; member < task_.team.size(); ++member) {
      const Found& found = task_.team.told(seat_, member);
      if (found.smallest > reached) continue;
      for (std::int64_t k = 0; k < found.count; ++k) {
        const Reached reach = k == 0 ? found.first : found.all[k];
        if (own_.column_to_row[reach.column] < 0) return reach.column;
        tree_.add(reach.column, reach.dual, reached);
        if (begin_ <= reach.column && reach.column < end_) tree_.hide(reach.column);
      }
    }
    return -1;
  }

  TeamTask<T>& task_;
  const DenseCost<T>& cost_;
  Workspace& own_;
  SearchTree tree_;
  Seat seat_;
  std::int64_t share_ = 0;
  std::int64_t begin_ = 0, end_ = 0;  // our columns
  bool interrupted_ = false;
  std::array<std::vector<Reached>, 2> lists_;
};

// The calling thread: assigns rows alone until all helpers have joined, and again after the team
// was left. If they never join, for example because the pool works for another caller, nothing was
// lost.
template <class Scan, class T>
Status lead_team(TeamTask<T>& task, TeamMember<Scan, T>& member) {
  const std::vector<std::int64_t>& rows = task.leader.free_rows;
  PathSearch<Scan, T> alone(task.cost, task.leader);
  bool started = false;
  Status status = Status::ok;
  try {
    for (std::size_t next = 0; next < rows.size() && status == Status::ok;) {
      if (!started && task.team.complete()) {
        started = true;
        task.first_row = next;
        task.team.start();
        status = member.assign_rows(next);
      } else {
        status = alone.augment(rows[next++]);
      }
    }
  } catch (const Interrupted&) {  // helpers may still wait to start
    status = Status::interrupted;
  }
  if (!started) task.team.dismiss();
  return status;
}

template <class Scan, class T>
void help_team(TeamTask<T>& task) {
  try {
    thread_local Workspace workspace;
    workspace.reserve(task.cost.rows, task.cost.columns);
    TeamMember<Scan, T> member(task, workspace);
    std::size_t next = 0;
    if (task.team.join(member.seat())) member.assign_rows(next);
  } catch (const std::bad_alloc&) {  // before it has joined: the others never wait for it
  }
}

// Assigns the free rows by a team of `size` threads.
template <class Scan, class T>
Status augment_in_team(const DenseCost<T>& cost, Workspace& workspace, std::int64_t size) {
  TeamTask<T> task(cost, workspace, size);
  TeamMember<Scan, T> leader(task, workspace);
  Status status = Status::ok;
  const std::thread::id caller = std::this_thread::get_id();
  ThreadPool::instance().run(size - 1, [&] {
    if (std::this_thread::get_id() == caller) {
      status = lead_team(task, leader);
    } else {
      help_team<Scan>(task);
    }
  });
  return status;
}

}  // namespace lwfm
