// The solver for at most kSmallColumns columns. Included once per instruction set, inside a
// namespace that defines Vec (a vector of doubles) and with LWFM_TARGET set to the function
// attribute it needs.
//
// Duals start at the column minima, rows take free tight columns, and each row left over gets a
// shortest augmenting path; all of it on rows held in registers, one lane for each column, so a
// step of Dijkstra's algorithm is a handful of instructions, and "the first of the smallest" is a
// compare and a count of trailing zeros. Lanes without a column have the dual -inf, which
// puts them out of reach. No include guard on purpose.

#include "core/assignment/small_row.h"

template <int R>
class SmallSolver {
 public:
  static constexpr int kLanes = R * Vec::kWidth;
  // How many of a row's vectors can have lanes without a column: see solve_small.
  static constexpr int kPartial = R > 4 ? 2 : 1;

  LWFM_TARGET SmallSolver(SmallState& state, std::int64_t rows, std::int64_t columns)
      : state_(state),
        rows_(static_cast<int>(rows)),
        columns_(static_cast<int>(columns)),
        free_columns_(~std::uint64_t{0} >> (64 - columns)) {}

  template <class T>
  LWFM_TARGET SmallStatus solve(const DenseCost<T>& cost) {
    SmallStatus status = load(cost);
    if (status == SmallStatus::ok) status = match_tight_rows();
    while (status == SmallStatus::ok && free_rows_ != 0) {
      const int row = lowest(free_rows_);
      free_rows_ &= free_rows_ - 1;
      status = augment(row);
    }
    return status;
  }

 private:
  static constexpr std::uint64_t kAllLanes = (std::uint64_t{1} << kLanes % 64) - 1;
  static constexpr std::uint64_t kNoColumn = std::uint64_t{1} << kSmallColumns;

  LWFM_TARGET static LWFM_INLINE int lowest(std::uint64_t word) { return __builtin_ctzll(word); }

  LWFM_TARGET LWFM_INLINE const double* row(int i) const { return state_.cost + i * kLanes; }

  // Copies the rows with their sign, followed by zeros. Nearly always the entries are ordinary
  // numbers, and then so is their sum.
  template <class T>
  LWFM_TARGET SmallStatus load(const DenseCost<T>& cost) {
    const int columns = columns_;
    const Vec factor = Vec::set(cost.factor);
    Row<R> smallest = set_row<R>(kInfinity), largest = set_row<R>(-kInfinity);
    Row<R> sum = set_row<R>(0.0);
    const T* from = cost.data;
    double* const end = state_.cost + rows_ * kLanes;
    for (double* to = state_.cost; to != end; to += kLanes, from += cost.row_stride) {
      const Row<R> entries = load_row<R, kPartial>(from, columns) * factor;
      store(entries, to);
      sum = sum + entries;
      smallest = min(smallest, entries);
      if constexpr (std::is_same_v<T, double>) largest = max(largest, entries);
    }
    std::uint64_t ordinary = bits(sum - sum == Vec::set(0.0));
    if constexpr (std::is_same_v<T, double>) {
      ordinary &= bits(largest < set_row<R>(kLargest)) & bits(set_row<R>(-kLargest) < smallest);
    }
    const SmallStatus status = ordinary == kAllLanes ? SmallStatus::ok : check_entries();
    return status == SmallStatus::ok ? start_duals(smallest) : status;
  }

  // Looks at every entry on its own.
  LWFM_TARGET SmallStatus check_entries() const {
    bool huge = false;
    for (int i = 0; i < rows_; ++i) {
      for (int j = 0; j < columns_; ++j) {
        const double entry = row(i)[j];
        if (!(entry > -kInfinity)) return SmallStatus::invalid_entry;
        huge = huge || (std::fabs(entry) > kLargest && entry < kInfinity);
      }
    }
    return huge ? SmallStatus::huge_entry : SmallStatus::ok;
  }

  // Square problems start from the column minima; in a rectangle the duals of free columns must be
  // zero.
  LWFM_TARGET LWFM_INLINE SmallStatus start_duals(Row<R> smallest) {
    const RowMask<R> columns = count_row<R>() < set_row<R>(columns_ - 0.5);
    const bool square = rows_ == columns_;
    const Row<R> start = square ? smallest : set_row<R>(0.0);
    store(select(columns, start, set_row<R>(-kInfinity)), state_.v);
    const std::uint64_t forbidden = bits(smallest == Vec::set(kInfinity));
    return square && forbidden != 0 ? SmallStatus::infeasible : SmallStatus::ok;
  }

  // Gives each row in turn its first free tight column, where it has one. No branch depends on it.
  LWFM_TARGET SmallStatus match_tight_rows() {
    const Row<R> v = load_row<R>(state_.v);
    Vec worst = Vec::set(-kInfinity);
    std::uint64_t free_rows = 0, free_columns = free_columns_;
    for (int i = 0; i < rows_; ++i) {
      const Row<R> reduced = load_row<R>(row(i)) - v;
      const Vec smallest = smallest_of(reduced);
      worst = max(worst, smallest);
      const std::uint64_t tight = bits(reduced == smallest) & free_columns;
      free_rows |= static_cast<std::uint64_t>(tight == 0) << i;
      free_columns &= ~(tight & (~tight + 1));
      const int j = lowest(tight | kNoColumn);
      state_.row_to_column[i] = j;
      state_.column_to_row[j] = i;
    }
    free_rows_ = free_rows;
    free_columns_ = free_columns;
    return first(worst) == kInfinity ? SmallStatus::infeasible : SmallStatus::ok;
  }

  // One shortest augmenting path from a free row. `distance` is that of each column; `open` is the
  // same, but +inf for columns inside the tree, whose dual in `open_v` is -inf.
  LWFM_TARGET SmallStatus augment(int start) {
    const Row<R> v = load_row<R>(state_.v);
    Row<R> distance = load_row<R>(row(start)) - v, open = distance, open_v = v;
    Row<R> predecessor = set_row<R>(start);
    Vec reached = smallest_of(distance);
    int column = choose(bits(distance == reached));
    while ((free_columns_ >> column & 1) == 0) {
      const int i = state_.column_to_row[column];
      const Vec length = (Vec::set(row(i)[column]) - Vec::set(state_.v[column])) - reached;
      const Row<R> taken = load_row<R>(kInfiniteLane.lanes + kSmallColumns - column);
      open_v = min(open_v, set_row<R>(0.0) - taken);
      const Row<R> candidate = (load_row<R>(row(i)) - open_v) - length;
      predecessor = select(candidate < distance, set_row<R>(i), predecessor);
      distance = min(candidate, distance);
      open = min(candidate, max(open, taken));
      reached = smallest_of(open);
      if (first(reached) == kInfinity) return SmallStatus::infeasible;
      column = choose(bits(open == reached));
    }
    store(v + min(distance - reached, set_row<R>(0.0)), state_.v);
    store(predecessor, state_.predecessor);
    flip(start, column);
    return SmallStatus::ok;
  }

  // Among equally near columns the first free one, else the first.
  LWFM_TARGET LWFM_INLINE int choose(std::uint64_t nearest) const {
    const std::uint64_t free = nearest & free_columns_;
    return lowest(free != 0 ? free : nearest);
  }

  LWFM_TARGET LWFM_INLINE void flip(int start, int column) {
    free_columns_ ^= std::uint64_t{1} << column;
    for (int i = -1; i != start;) {
      i = static_cast<int>(state_.predecessor[column]);
      state_.column_to_row[column] = i;
      std::swap(column, state_.row_to_column[i]);
    }
  }

  SmallState& state_;
  int rows_;
  int columns_;
  std::uint64_t free_rows_ = 0;
  std::uint64_t free_columns_;
};

// Solves a problem of 1 to kSmallColumns columns with the narrowest solver that holds it.
template <class T, int R = 1>
LWFM_TARGET SmallStatus solve_small(const DenseCost<T>& cost, SmallState& state) {
  if constexpr (R * Vec::kWidth < kSmallColumns) {
    constexpr int kNext = R < 4 ? R + 1 : R + 2;  // fewer instances compile faster
    if (cost.columns > R * Vec::kWidth) return solve_small<T, kNext>(cost, state);
  }
  return SmallSolver<R>(state, cost.rows, cost.columns).solve(cost);
}
