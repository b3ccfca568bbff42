// The assignments of a cost matrix in order of their totals: the best, the second best, ...
//
// K. G. Murty, "An algorithm for ranking all the assignments in order of increasing cost",
// Operations Research 16 (1968), 682-687, with the improvements of M. L. Miller, H. S. Stone and
// I. J. Cox, "Optimizing Murty's ranked assignment method", IEEE Trans. Aerosp. Electron. Syst. 33
// (1997), 851-862: a part is solved by one shortest path from the duals of the part it was split
// off, only when its lower bound is the least, and the most promising part is the smallest.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/assignment.h"
#include "core/assignment/exchange_search.h"
#include "core/status_of.h"

namespace lwfm {

class Ranking {
 public:
  Ranking() = default;
  Ranking(const Ranking&) = delete;
  Ranking& operator=(const Ranking&) = delete;
  virtual ~Ranking() = default;

  // Writes the column of each row of the caller's matrix, -1 for none, in the next assignment.
  // `infeasible`: there are no more. After `interrupted` the same call may be made again.
  virtual Status next(std::int64_t* assignment, Interruption* interruption) noexcept = 0;

  // No assignment that was not written yet costs less (earns more, when maximizing). Infinite while
  // nothing is known, and after the last one.
  virtual double bound() const = 0;
};

// T is the type of the prepared costs.
template <class Scan, class T>
class RankingOf final : public Ranking {
 public:
  // `problem` is read as long as this lives, and `workspace` used.
  RankingOf(const Prepared<T>& problem, Workspace& workspace, SimdLevel level)
      : problem_(problem), workspace_(workspace), level_(level) {}

  Status next(std::int64_t* assignment, Interruption* interruption) noexcept override {
    workspace_.watch.begin(interruption);
    return status_of<Status>([&] {
      if (search_ == nullptr) {
        const Status status = begin(interruption);
        if (status != Status::ok) return status;
      }
      if (split_ != nullptr) {
        split(split_);
        split_ = nullptr;
      }
      while (!parts_.empty() && parts_.front().subset != kWhole) solve_first();
      if (parts_.empty()) return Status::infeasible;
      split_ = take_first().solved;
      write(split_->columns, assignment);
      return Status::ok;
    });
  }

  double bound() const override {
    if (search_ == nullptr) return first_bound_;
    const double excess = split_ != nullptr ? split_->excess
                          : parts_.empty()  ? kInfinity
                                            : parts_.front().excess;
    return callers_objective(problem_, {}, first_total_ + excess);
  }

 private:
  // A part of all assignments, and the cheapest one in it.
  struct Solved {
    double excess;                        // of its total over that of the best of all
    std::vector<std::int64_t> columns;    // of each row
    std::vector<double> v;                // duals; -inf where the column is fixed
    std::vector<std::int64_t> free_rows;  // those whose column is not fixed
    std::vector<Pair> forbidden;          // of free rows
  };

  static constexpr std::int64_t kWhole = -1;
  static constexpr std::int64_t kFirstScans = 4;  // of a row, for its first bound

  // `solved`, or what is split off it and not solved yet: the first `subset` free rows keep their
  // columns, and the next one must not.
  struct Part {
    double excess;  // exact, or a lower bound
    double least;   // of a subset: the bound on what it costs more than the whole
    std::int64_t subset;
    std::int64_t number;  // in order of creation
    std::shared_ptr<Solved> solved;
  };

  // Whether a part comes after another: by excess, solved ones first, then by age.
  static bool is_after(const Part& a, const Part& b) {
    if (a.excess != b.excess) return a.excess > b.excess;
    if ((a.subset == kWhole) != (b.subset == kWhole)) return b.subset == kWhole;
    return a.number > b.number;
  }

  void add(const Part& part) {
    parts_.push_back(part);
    parts_.back().number = created_++;
    std::push_heap(parts_.begin(), parts_.end(), is_after);
  }

  void add_solved(const std::shared_ptr<Solved>& solved) {
    add({solved->excess, 0.0, kWhole, 0, solved});
  }

  void add_subset(const std::shared_ptr<Solved>& whole, std::int64_t subset, double least) {
    add({whole->excess + least, least, subset, 0, whole});
  }

  Part take_first() {
    std::pop_heap(parts_.begin(), parts_.end(), is_after);
    Part part = std::move(parts_.back());
    parts_.pop_back();
    return part;
  }

  // Finds the best assignment of all.
  Status begin(Interruption* interruption) {
    auto best = std::make_shared<Solved>();
    const std::int64_t rows = problem_.cost.rows, columns = problem_.cost.columns;
    Options options;
    options.interruption = interruption;
    options.bound = &first_bound_;
    const auto keep = [&](const auto& answer) {
      best->columns.assign(answer.row_to_column, answer.row_to_column + rows);
      best->v.assign(answer.v, answer.v + columns);
    };
    const Status status = solve_prepared(problem_, options, workspace_, level_, keep);
    if (status != Status::ok) return status;
    problem_.cost = with_whole_vectors(problem_.cost, wide_);
    best->v.resize(static_cast<std::size_t>(problem_.cost.columns), -kInfinity);
    best->excess = 0.0;
    best->free_rows.resize(static_cast<std::size_t>(rows));
    std::iota(best->free_rows.begin(), best->free_rows.end(), std::int64_t{0});
    first_columns_ = best->columns;
    for (std::int64_t i = 0; i < rows; ++i) {
      first_total_ += problem_.cost.at(i, best->columns[static_cast<std::size_t>(i)]);
    }
    workspace_.reserve(rows + 1, problem_.cost.columns);
    search_ = std::make_unique<ExchangeSearch<Scan, T>>(problem_.cost, workspace_);
    add_solved(best);
    return Status::ok;
  }

  // Puts a solved part into the workspace.
  void load(const Solved& part) {
    const std::int64_t rows = problem_.cost.rows;
    std::copy(part.v.begin(), part.v.end(), workspace_.v.begin());
    std::copy(part.columns.begin(), part.columns.end(), workspace_.row_to_column.begin());
    std::fill(workspace_.column_to_row.begin(), workspace_.column_to_row.end(), rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      workspace_
          .column_to_row[static_cast<std::size_t>(part.columns[static_cast<std::size_t>(i)])] = i;
    }
  }

  // Splits a part, less its cheapest assignment, by the first row that gets another column. Rows
  // whose change costs most come first: the cheapest changes are left to the smallest parts.
  void split(const std::shared_ptr<Solved>& part) {
    load(*part);
    search_->forbid(part->forbidden);
    order_.clear();
    for (const std::int64_t row : part->free_rows) {
      order_.emplace_back(search_->least_cost(row, kFirstScans), row);
    }
    std::stable_sort(order_.begin(), order_.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (std::size_t k = 0; k < order_.size(); ++k) {
      part->free_rows[k] = order_[k].second;
      if (order_[k].first == kInfinity) continue;
      add_subset(part, static_cast<std::int64_t>(k), order_[k].first);
    }
  }

  // Solves the first part, a subset, or raises its bound above that of the next part. A bound at
  // least doubles, so that searches are not repeated often.
  void solve_first() {
    const Part part = parts_.front();
    const Solved& whole = *part.solved;
    const std::int64_t row = whole.free_rows[static_cast<std::size_t>(part.subset)];
    load(whole);
    std::vector<Pair> forbidden = restrict(whole, part.subset);
    const double limit = std::max(second_excess() - whole.excess, 2 * part.least);
    const double least = search_->exchange(row, limit);
    take_first();
    if (least == kInfinity) return;
    if (least > limit) return add_subset(part.solved, part.subset, least);
    auto solved = std::make_shared<Solved>();
    const auto& columns = workspace_.row_to_column;
    solved->columns.assign(columns.begin(), columns.begin() + problem_.cost.rows);
    solved->v.assign(workspace_.v.begin(), workspace_.v.end());
    solved->free_rows.assign(whole.free_rows.begin() + part.subset, whole.free_rows.end());
    solved->forbidden = std::move(forbidden);
    solved->excess = std::max(whole.excess, excess_of(solved->columns));
    add_solved(solved);
  }

  // The excess of the part after the first; +inf if there is none.
  double second_excess() const {
    double second = kInfinity;
    for (std::size_t k = 1; k < std::min<std::size_t>(3, parts_.size()); ++k) {
      second = std::min(second, parts_[k].excess);
    }
    return second;
  }

  // Fixes the columns of the first `fixed` free rows of a part, which is in the workspace, and
  // forbids its own to the next one. Returns the pairs that are forbidden now.
  std::vector<Pair> restrict(const Solved& part, std::int64_t fixed) {
    is_fixed_.assign(static_cast<std::size_t>(problem_.cost.rows), 0);
    for (std::int64_t k = 0; k < fixed; ++k) {
      const auto kept = static_cast<std::size_t>(part.free_rows[static_cast<std::size_t>(k)]);
      is_fixed_[kept] = 1;
      workspace_.v[part.columns[kept]] = -kInfinity;
    }
    std::vector<Pair> forbidden;
    for (const Pair& pair : part.forbidden) {
      if (is_fixed_[static_cast<std::size_t>(pair.row)] == 0) forbidden.push_back(pair);
    }
    const std::int64_t row = part.free_rows[static_cast<std::size_t>(fixed)];
    forbidden.push_back({row, part.columns[static_cast<std::size_t>(row)]});
    search_->forbid(forbidden);
    return forbidden;
  }

  // What the columns cost more than the best ones.
  double excess_of(const std::vector<std::int64_t>& columns) const {
    double excess = 0.0;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (columns[i] == first_columns_[i]) continue;
      const auto row = static_cast<std::int64_t>(i);
      excess += problem_.cost.at(row, columns[i]) - problem_.cost.at(row, first_columns_[i]);
    }
    return excess;
  }

  void write(const std::vector<std::int64_t>& columns, std::int64_t* assignment) const {
    if (!problem_.transposed) {
      std::copy(columns.begin(), columns.end(), assignment);
      return;
    }
    std::fill_n(assignment, problem_.paired_columns, std::int64_t{-1});
    for (std::size_t i = 0; i < columns.size(); ++i) {
      assignment[columns[i]] = static_cast<std::int64_t>(i);
    }
  }

  Prepared<T> problem_;
  Workspace& workspace_;
  const SimdLevel level_;
  std::vector<T> wide_;
  std::unique_ptr<ExchangeSearch<Scan, T>> search_;
  std::vector<Part> parts_;                  // a heap
  std::shared_ptr<Solved> split_;            // written last; not split yet
  std::vector<std::int64_t> first_columns_;  // of the best assignment
  double first_total_ = 0.0;                 // in the solver's form
  double first_bound_ = problem_.cost.factor < 0 ? kInfinity : -kInfinity;
  std::vector<char> is_fixed_;
  std::vector<std::pair<double, std::int64_t>> order_;  // of rows: what their change costs at least
  std::int64_t created_ = 0;
};

// A ranking of the assignments of `cost`, which must outlive it, as must the workspace. Throws
// Interrupted, as the workspace's watch does.
template <class T>
std::unique_ptr<Ranking> rank(const CostMatrix<T>& cost, bool maximize, Workspace& workspace,
                              SimdLevel level = simd_level()) {
  const auto problem = prepare(cost, maximize, workspace);
  using Number = Real<T>;
#if LWFM_X86
  if (level == SimdLevel::avx512) {
    return std::make_unique<RankingOf<avx512::Scan, Number>>(problem, workspace, level);
  }
  if (level == SimdLevel::avx2) {
    return std::make_unique<RankingOf<avx2::Scan, Number>>(problem, workspace, level);
  }
#endif
  return std::make_unique<RankingOf<portable::Scan, Number>>(problem, workspace, level);
}

// The total of an assignment: integers are summed exactly and rounded once, others as total_cost.
template <class T>
auto exact_total(const CostMatrix<T>& cost, const std::int64_t* assignment) {
  if constexpr (std::is_integral_v<T>) {
    __int128 total = 0;
    for (std::int64_t i = 0; i < cost.rows; ++i) {
      if (assignment[i] >= 0) total += cost.at(i, assignment[i]);
    }
    return total;
  } else {
    return total_cost(cost, assignment);
  }
}

// Assignments [found, rows] of the caller's matrix with their totals [found].
struct Best {
  std::vector<std::int64_t> columns;
  std::vector<double> totals;
  double bound;  // after an interruption: no other assignment costs less (earns more)
};

// Orders assignments by their totals, equal ones by their columns, and writes the totals.
template <class T>
void sort_by_total(const CostMatrix<T>& cost, bool maximize, Best& best) {
  using Total = decltype(exact_total(cost, nullptr));
  const auto rows = static_cast<std::size_t>(cost.rows);
  std::vector<std::pair<Total, const std::int64_t*>> order(best.totals.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    const std::int64_t* columns = best.columns.data() + k * rows;
    order[k] = {exact_total(cost, columns), columns};
  }
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    if (a.first != b.first) return maximize ? a.first > b.first : a.first < b.first;
    return std::lexicographical_compare(a.second, a.second + rows, b.second, b.second + rows);
  });
  std::vector<std::int64_t> sorted;
  sorted.reserve(best.columns.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    best.totals[k] = static_cast<double>(order[k].first);
    sorted.insert(sorted.end(), order[k].second, order[k].second + rows);
  }
  best.columns = std::move(sorted);
}

// Finds the k best assignments, or all where there are fewer. `infeasible` if there is none.
template <class T>
Status find_best(const CostMatrix<T>& cost, std::int64_t k, bool maximize,
                 Interruption* interruption, Workspace& workspace, Best& best,
                 SimdLevel level = simd_level()) noexcept {
  best = {{}, {}, maximize ? kInfinity : -kInfinity};
  workspace.watch.begin(interruption);
  return status_of<Status>([&] {
    workspace.watch.count(cost.rows * cost.columns);
    const std::unique_ptr<Ranking> ranking = rank(cost, maximize, workspace, level);
    std::vector<std::int64_t> columns(static_cast<std::size_t>(cost.rows));
    Status status = Status::ok;
    while (static_cast<std::int64_t>(best.totals.size()) < k) {
      status = ranking->next(columns.data(), interruption);
      if (status != Status::ok) break;
      best.columns.insert(best.columns.end(), columns.begin(), columns.end());
      best.totals.push_back(0.0);
    }
    if (status == Status::interrupted) best.bound = ranking->bound();
    if (status == Status::infeasible && !best.totals.empty()) status = Status::ok;
    if (status == Status::ok) sort_by_total(cost, maximize, best);
    return status;
  });
}

}  // namespace lwfm
