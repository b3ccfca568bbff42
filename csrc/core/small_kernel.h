// The solver for at most kSmallColumns columns. Included once per instruction set, inside a
// namespace that defines Vec (a vector of doubles) and with LWFM_TARGET set to the function
// attribute it needs.
//
// Duals start at the column minima, rows take free tight columns, and each row left over gets a
// shortest augmenting path; all of it on R vectors that hold one entry per column, so a step of
// Dijkstra's algorithm is a handful of instructions, and "the first of the smallest" is a compare
// and a count of trailing zeros. No include guard on purpose.

template <int R>
class SmallSolver {
 public:
  static constexpr int kWidth = Vec::kWidth;
  static constexpr int kLanes = R * kWidth;

  LWFM_TARGET SmallSolver(SmallState& state, std::int64_t rows, std::int64_t columns)
      : state_(state), rows_(static_cast<int>(rows)), columns_(static_cast<int>(columns)) {}

  template <class T>
  LWFM_TARGET SmallStatus solve(const DenseCost<T>& cost) {
    SmallStatus status = load(cost);
    if (status == SmallStatus::ok) status = start_duals();
    if (status == SmallStatus::ok) status = match_tight_rows();
    while (status == SmallStatus::ok && free_rows_ != 0) {
      const int row = lowest(free_rows_);
      free_rows_ &= free_rows_ - 1;
      status = augment(row);
    }
    return status;
  }

 private:
  using Mask = typename Vec::Mask;

  LWFM_TARGET static LWFM_INLINE int lowest(std::uint64_t word) { return __builtin_ctzll(word); }

  LWFM_TARGET LWFM_INLINE const double* row(int i) const { return state_.cost + i * kLanes; }

  // Lanes of vector r that stand for no column; only the last two vectors can have any.
  LWFM_TARGET LWFM_INLINE Mask padding(int r) const {
    return Vec::set(columns_ - 0.5) < Vec::count_from(r * kWidth);
  }

  // Copies the rows, padded and with their sign, looking at every entry; v becomes the column
  // minima.
  template <class T>
  LWFM_TARGET SmallStatus load(const DenseCost<T>& cost) {
    const Vec infinity = Vec::set(kInfinity), limit = Vec::set(kLargest);
    const Vec factor = Vec::set(cost.factor);
    Mask valid = infinity == infinity;
    std::uint64_t huge = 0;
    Vec smallest[R];
    for (int r = 0; r < R; ++r) smallest[r] = infinity;
    const T* end = cost.row(rows_ - 1) + columns_;
    T tail[kLanes] = {};
    for (int i = 0; i < rows_; ++i) {
      const T* from = cost.row(i);
      if (cost.row_stride < 0 || end - from < kLanes) {  // never read past the caller's memory
        std::copy(from, from + columns_, tail);
        from = tail;
      }
      double* to = state_.cost + i * kLanes;
      for (int r = 0; r < R; ++r) {
        Vec entry = Vec::load(from + r * kWidth) * factor;
        if (r >= R - 2) entry = select(padding(r), infinity, entry);
        entry.store(to + r * kWidth);
        valid = valid & (Vec::set(-kInfinity) < entry);
        if constexpr (std::is_same_v<T, double>) {
          huge |= bits((limit < entry) & (entry < infinity)) | bits(entry < Vec::set(-kLargest));
        }
        smallest[r] = min(smallest[r], entry);
      }
    }
    for (int r = 0; r < R; ++r) smallest[r].store(state_.v + r * kWidth);
    if (bits(valid) != (std::uint64_t{1} << kWidth) - 1) return SmallStatus::invalid_entry;
    return huge != 0 ? SmallStatus::huge_entry : SmallStatus::ok;
  }

  // Square problems keep the column minima; in a rectangle the duals of free columns must be zero.
  LWFM_TARGET SmallStatus start_duals() {
    std::uint64_t forbidden = 0;
    for (int r = 0; r < R; ++r) {
      double* v = state_.v + r * kWidth;
      const Mask empty = Vec::load(v) == Vec::set(kInfinity);
      forbidden |= bits(empty) << (r * kWidth);
      if (rows_ < columns_) {
        Vec::set(0.0).store(v);
      } else {
        select(empty, Vec::set(0.0), Vec::load(v)).store(v);
      }
    }
    free_columns_ = ~std::uint64_t{0} >> (64 - columns_);
    return rows_ == columns_ && (forbidden & free_columns_) != 0 ? SmallStatus::infeasible
                                                                 : SmallStatus::ok;
  }

  // Gives each row in turn its first free tight column, where it has one.
  LWFM_TARGET SmallStatus match_tight_rows() {
    Vec v[R];
    for (int r = 0; r < R; ++r) v[r] = Vec::load(state_.v + r * kWidth);
    free_rows_ = 0;
    for (int i = 0; i < rows_; ++i) {
      Vec reduced[R];
      for (int r = 0; r < R; ++r) reduced[r] = Vec::load(row(i) + r * kWidth) - v[r];
      const Vec smallest = smallest_of(reduced);
      if (first(smallest) == kInfinity) return SmallStatus::infeasible;
      const std::uint64_t tight = equal_to(reduced, smallest) & free_columns_;
      if (tight == 0) {
        free_rows_ |= std::uint64_t{1} << i;
      } else {
        const int j = lowest(tight);
        free_columns_ ^= std::uint64_t{1} << j;
        state_.row_to_column[i] = j;
        state_.column_to_row[j] = i;
      }
    }
    return SmallStatus::ok;
  }

  LWFM_TARGET static LWFM_INLINE Vec smallest_of(const Vec* values) {
    Vec smallest = values[0];
    for (int r = 1; r < R; ++r) smallest = min(smallest, values[r]);
    return spread_min(smallest);
  }

  LWFM_TARGET static LWFM_INLINE std::uint64_t equal_to(const Vec* values, Vec value) {
    std::uint64_t equal = 0;
    for (int r = 0; r < R; ++r) equal |= bits(values[r] == value) << (r * kWidth);
    return equal;
  }

  // One shortest augmenting path from a free row. `open` holds the distances of the columns outside
  // the tree; inside it is +inf, and v is -inf, so that no path gets shorter there.
  LWFM_TARGET SmallStatus augment(int start) {
    Vec v[R], open[R], predecessor[R], reached[R];
    for (int r = 0; r < R; ++r) {
      v[r] = Vec::load(state_.v + r * kWidth);
      open[r] = Vec::load(row(start) + r * kWidth) - v[r];
      predecessor[r] = Vec::set(start);
      reached[r] = Vec::set(kInfinity);
    }
    Vec distance = smallest_of(open);
    int column = choose(equal_to(open, distance));
    while ((free_columns_ >> column & 1) == 0) {
      const int i = state_.column_to_row[column];
      const Vec length = (Vec::set(row(i)[column]) - Vec::set(state_.v[column])) - distance;
      const Vec taken = Vec::set(column);
      for (int r = 0; r < R; ++r) {
        const Mask now = Vec::count_from(r * kWidth) == taken;
        reached[r] = select(now, distance, reached[r]);
        open[r] = select(now, Vec::set(kInfinity), open[r]);
        v[r] = select(now, Vec::set(-kInfinity), v[r]);
        const Vec candidate = (Vec::load(row(i) + r * kWidth) - v[r]) - length;
        predecessor[r] = select(candidate < open[r], Vec::set(i), predecessor[r]);
        open[r] = min(candidate, open[r]);
      }
      distance = smallest_of(open);
      if (first(distance) == kInfinity) return SmallStatus::infeasible;
      column = choose(equal_to(open, distance));
    }
    for (int r = 0; r < R; ++r) {
      const Vec drop = min(reached[r] - distance, Vec::set(0.0));
      (Vec::load(state_.v + r * kWidth) + drop).store(state_.v + r * kWidth);
      predecessor[r].store(state_.predecessor + r * kWidth);
    }
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
  std::uint64_t free_columns_ = 0;
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
