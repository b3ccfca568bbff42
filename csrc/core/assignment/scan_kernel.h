// The passes over one row of a cost matrix that the solver for many columns is made of. Included
// once per instruction set, inside a namespace that defines Vec (a vector of doubles) and with
// LWFM_TARGET set to the function attribute it needs. Rows have at least Vec::kWidth entries. A
// last vector that would overhang overlaps the one before it. No include guard on purpose.

struct Scan {
  static constexpr std::int64_t kWidth = Vec::kWidth;
  static constexpr std::uint64_t kAllLanes = (std::uint64_t{1} << kWidth) - 1;

  // Where the vector starts that begins at j or, at the end, overlaps what came before.
  LWFM_TARGET static LWFM_INLINE std::int64_t clamp(std::int64_t j, std::int64_t columns) {
    return j < columns - kWidth ? j : columns - kWidth;
  }

  template <class T>
  LWFM_TARGET static LWFM_INLINE Vec reduced(const T* row, Vec factor, const double* v,
                                             std::int64_t j) {
    return Vec::load(row + j) * factor - Vec::load(v + j);
  }

  // Whether no entry is NaN or -inf; a loop that the compiler makes vectors of float32 of.
  LWFM_TARGET static bool all_above_lowest(const float* row, float factor, std::int64_t columns) {
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    int others = 0;
    for (std::int64_t j = 0; j < columns; ++j) others |= !(kLowest < row[j] * factor);
    return others == 0;
  }

  // Adds to `check` what the row's entries show and, if kMinima, lowers v to them. Nearly every row
  // passes the first test: no float32 is huge.
  template <bool kMinima, class T>
  LWFM_TARGET static void read_row(const T* row, double factor, double* v, EntryCheck& check,
                                   std::int64_t columns) {
    if constexpr (std::is_same_v<T, float> && !kMinima) {
      if (all_above_lowest(row, static_cast<float>(factor), columns)) return;
    }
    const Vec sign = Vec::set(factor), limit = Vec::set(kLargest), infinity = Vec::set(kInfinity);
    const Vec lowest = Vec::set(std::is_same_v<T, float> ? -kInfinity : -kLargest);
    auto ordinary = infinity == infinity;
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      const Vec entry = Vec::load(row + j) * sign;
      ordinary = ordinary & (lowest < entry);
      if constexpr (std::is_same_v<T, double>) {
        ordinary = ordinary & (select(entry < infinity, entry, Vec::set(0.0)) < limit);
      }
      if constexpr (kMinima) min(entry, Vec::load(v + j)).store(v + j);
    }
    if (bits(ordinary) == kAllLanes) return;
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const Vec entry = Vec::load(row + clamp(next, columns)) * sign;
      check.invalid = check.invalid || bits(Vec::set(-kInfinity) < entry) != kAllLanes;
      check.huge = check.huge || bits((limit < entry) & (entry < infinity)) != 0 ||
                   bits(entry < Vec::set(-kLargest)) != 0;
    }
  }

  // Lowers v to the row's entries plus `offset` where those are lower; whether any were.
  template <class T>
  LWFM_TARGET static bool lower_to_row(const T* row, double factor, double offset, double* v,
                                       std::int64_t columns) {
    const Vec sign = Vec::set(factor), shift = Vec::set(offset);
    std::uint64_t lowered = 0;
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      const Vec entry = Vec::load(row + j) * sign + shift, known = Vec::load(v + j);
      lowered |= bits(entry < known);
      min(entry, known).store(v + j);
    }
    return lowered != 0;
  }

  // How many columns are tight for the row: of reduced cost zero.
  template <class T>
  LWFM_TARGET static std::int64_t count_tight(const T* row, double factor, const double* v,
                                              std::int64_t columns) {
    const Vec sign = Vec::set(factor), zero = Vec::set(0.0);
    std::int64_t count = 0;
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      const std::uint64_t tight = bits(reduced(row, sign, v, j) == zero);
      count += __builtin_popcountll(tight >> (next - j));  // lanes counted before fall out
    }
    return count;
  }

  // The first tight column; -1 if there is none. Columns with v = -inf never are.
  template <class T>
  LWFM_TARGET static std::int64_t first_tight(const T* row, double factor, const double* v,
                                              std::int64_t columns) {
    const Vec sign = Vec::set(factor), zero = Vec::set(0.0);
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      const std::uint64_t tight = bits(reduced(row, sign, v, j) == zero);
      if (tight != 0) return j + __builtin_ctzll(tight);
    }
    return -1;
  }

  // The first free column whose reduced cost equals `value`; -1 if there is none.
  template <class T>
  LWFM_TARGET static std::int64_t first_free(const T* row, double factor, const double* v,
                                             const std::int64_t* column_to_row, double value,
                                             std::int64_t columns) {
    const Vec sign = Vec::set(factor), wanted = Vec::set(value);
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      for (std::uint64_t equal = bits(reduced(row, sign, v, j) == wanted); equal != 0;
           equal &= equal - 1) {
        const std::int64_t column = j + __builtin_ctzll(equal);
        if (column_to_row[column] < 0) return column;
      }
    }
    return -1;
  }

  // The two smallest reduced costs of the row, and the first column of the smallest. Two sets of
  // running minima keep the additions of one from waiting for those of the other.
  template <class T>
  LWFM_TARGET static TwoSmallest two_smallest(const T* row, double factor, const double* v,
                                              std::int64_t columns) {
    const Vec sign = Vec::set(factor), step = Vec::set(2.0 * kWidth);
    RunningMinima even(0), odd(kWidth);
    std::int64_t j = 0;
    for (; j + 2 * kWidth <= columns; j += 2 * kWidth) {
      even.add(reduced(row, sign, v, j));
      odd.add(reduced(row, sign, v, j + kWidth));
      even.here = even.here + step;
      odd.here = odd.here + step;
    }
    for (; j < columns; j += kWidth) {  // lanes seen before count as infinite
      const std::int64_t at = clamp(j, columns);
      even.here = Vec::count_from(static_cast<double>(at));
      const auto fresh = Vec::set(static_cast<double>(j) - 0.5) < even.here;
      even.add(select(fresh, reduced(row, sign, v, at), Vec::set(kInfinity)));
    }
    return across_lanes(even, odd);
  }

  // Columns are searched in blocks; `nearest` holds the lane-wise smallest distance of each.
  static constexpr std::int64_t kBlock = 8 * kWidth;

  // Shortens distance[j] to the reduced cost minus `length` wherever that is shorter, noting
  // `predecessor` there. Returns the smallest distance. Columns taken out of the search have
  // v = -inf and distance = +inf, and stay so.
  template <class T>
  LWFM_TARGET static double relax(const T* row, double factor, const double* v, double length,
                                  double predecessor, double* distance, double* predecessors,
                                  double* nearest, std::int64_t columns) {
    const Relaxation<T> relaxation{row, Vec::set(factor), Vec::set(length), Vec::set(predecessor),
                                   v,   distance,         predecessors};
    Vec smallest = Vec::set(kInfinity);
    std::int64_t begin = 0;
    for (; begin + kBlock <= columns; begin += kBlock) {
      Vec in_block = relaxation.at(begin);
      for (int k = 1; k < 8; ++k) in_block = min(in_block, relaxation.at(begin + k * kWidth));
      in_block.store(nearest + begin / 8);
      smallest = min(smallest, in_block);
    }
    if (begin < columns) {
      Vec in_block = Vec::set(kInfinity);
      for (std::int64_t next = begin; next < columns; next += kWidth) {
        in_block = min(in_block, relaxation.at(clamp(next, columns)));
      }
      in_block.store(nearest + begin / 8);
      smallest = min(smallest, in_block);
    }
    return first(spread_min(smallest));
  }

  // The first column from `j` on whose distance is at most `reached`; `columns` if there is none.
  // `nearest` is what the last call of relax left.
  LWFM_TARGET static std::int64_t next_within(const double* distance, const double* nearest,
                                              double reached, std::int64_t j,
                                              std::int64_t columns) {
    const Vec limit = Vec::set(reached);
    while (j < columns) {
      const std::int64_t begin = j - j % kBlock;
      const std::int64_t end = begin + kBlock < columns ? begin + kBlock : columns;
      if (bits(limit < Vec::load(nearest + begin / 8)) != kAllLanes) {
        for (; j < end; j += kWidth) {
          const std::int64_t at = clamp(j, columns);
          const std::uint64_t within = bits(limit < Vec::load(distance + at)) ^ kAllLanes;
          const std::uint64_t fresh = within >> (j - at);
          if (fresh != 0) return j + __builtin_ctzll(fresh);
        }
      }
      j = end;
    }
    return columns;
  }

 private:
  // One row's relaxation of the columns of a vector.
  template <class T>
  struct Relaxation {
    const T* row;
    Vec sign, length, predecessor;
    const double* v;
    double* distance;
    double* predecessors;

    // Returns the distances from column j on.
    LWFM_TARGET LWFM_INLINE Vec at(std::int64_t j) const {
      const Vec candidate = reduced(row, sign, v, j) - length;
      const Vec known = Vec::load(distance + j);
      const Vec shortest = min(candidate, known);
      select(candidate < known, predecessor, Vec::load(predecessors + j)).store(predecessors + j);
      shortest.store(distance + j);
      return shortest;
    }
  };

  // The two smallest values seen so far in each lane, and where the smallest was first.
  struct RunningMinima {
    Vec best, second, index, here;

    LWFM_TARGET LWFM_INLINE explicit RunningMinima(std::int64_t begin)
        : best(Vec::set(kInfinity)),
          second(Vec::set(kInfinity)),
          index(Vec::set(kInfinity)),
          here(Vec::count_from(static_cast<double>(begin))) {}

    LWFM_TARGET LWFM_INLINE void add(Vec value) {
      second = min(second, max(best, value));
      index = select(value < best, here, index);
      best = min(value, best);
    }
  };

  LWFM_TARGET static LWFM_INLINE TwoSmallest across_lanes(const RunningMinima& even,
                                                          const RunningMinima& odd) {
    const Vec best = min(even.best, odd.best);
    const Vec smallest = spread_min(best);
    const Vec infinity = Vec::set(kInfinity);
    const auto in_even = even.best == smallest, in_odd = odd.best == smallest;
    const Vec index =
        spread_min(min(select(in_even, even.index, infinity), select(in_odd, odd.index, infinity)));
    // The second smallest: the lane of the smallest offers its second, every other its best.
    const auto own_even = even.index == index, own_odd = odd.index == index;
    const Vec second = spread_min(
        min(select(own_even, even.second, even.best), select(own_odd, odd.second, odd.best)));
    return {first(smallest), first(second), first(index)};
  }
};
