// The passes over one row of a cost matrix that the solver for many columns is made of. Included
// once per instruction set, inside a namespace that defines Vec (a vector of doubles) and with
// LWFM_TARGET set to the function attribute it needs. Rows have at least Vec::kWidth entries. A
// last vector that would overhang overlaps the one before it. No include guard on purpose.

struct Scan {
  static constexpr std::int64_t kWidth = Vec::kWidth;

  // Where the vector starts that begins at j or, at the end, overlaps what came before.
  LWFM_TARGET static LWFM_INLINE std::int64_t clamp(std::int64_t j, std::int64_t columns) {
    return j < columns - kWidth ? j : columns - kWidth;
  }

  template <class T>
  LWFM_TARGET static LWFM_INLINE Vec reduced(const T* row, Vec factor, const double* v,
                                             std::int64_t j) {
    return Vec::load(row + j) * factor - Vec::load(v + j);
  }

  // Lowers v to the row's entries where those are lower; adds to `check` what the entries show.
  template <class T>
  LWFM_TARGET static void lower_to_row(const T* row, double factor, double* v, EntryCheck& check,
                                       std::int64_t columns) {
    const Vec sign = Vec::set(factor), limit = Vec::set(kLargest), infinity = Vec::set(kInfinity);
    auto valid = infinity == infinity;
    std::uint64_t huge = 0;
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      const Vec entry = Vec::load(row + j) * sign;
      valid = valid & (Vec::set(-kInfinity) < entry);
      if constexpr (std::is_same_v<T, double>) {
        huge |= bits((limit < entry) & (entry < infinity)) | bits(entry < Vec::set(-kLargest));
      }
      min(entry, Vec::load(v + j)).store(v + j);
    }
    check.invalid = check.invalid || bits(valid) != (std::uint64_t{1} << kWidth) - 1;
    check.huge = check.huge || huge != 0;
  }

  // The smallest reduced cost of the row.
  template <class T>
  LWFM_TARGET static double smallest(const T* row, double factor, const double* v,
                                     std::int64_t columns) {
    const Vec sign = Vec::set(factor);
    Vec best = Vec::set(kInfinity);
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      best = min(best, reduced(row, sign, v, clamp(next, columns)));
    }
    return first(spread_min(best));
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

  // The two smallest reduced costs of the row, and the first column of the smallest.
  template <class T>
  LWFM_TARGET static TwoSmallest two_smallest(const T* row, double factor, const double* v,
                                              std::int64_t columns) {
    const Vec sign = Vec::set(factor), infinity = Vec::set(kInfinity);
    Vec best = infinity, second = infinity, index = Vec::set(-1);
    Vec here = Vec::count_from(0);
    const Vec step = Vec::set(static_cast<double>(kWidth));
    const std::int64_t whole = columns - columns % kWidth;
    for (std::int64_t j = 0; j < whole; j += kWidth) {
      const Vec cost = reduced(row, sign, v, j);
      second = min(second, max(best, cost));
      index = select(cost < best, here, index);
      best = min(cost, best);
      here = here + step;
    }
    if (whole < columns) {  // the lanes of the last vector that were not seen yet
      const std::int64_t j = columns - kWidth;
      const auto fresh =
          Vec::set(static_cast<double>(whole) - 0.5) < Vec::count_from(static_cast<double>(j));
      const Vec cost = select(fresh, reduced(row, sign, v, j), infinity);
      second = min(second, max(best, cost));
      index = select(cost < best, Vec::count_from(static_cast<double>(j)), index);
      best = min(cost, best);
    }
    return across_lanes(best, second, index);
  }

  // Shortens distance[j] to the reduced cost minus `length` wherever that is shorter, noting
  // `predecessor` there. Returns the smallest distance. Columns taken out of the search have
  // v = -inf and distance = +inf, and stay so.
  template <class T>
  LWFM_TARGET static double relax(const T* row, double factor, const double* v, double length,
                                  double predecessor, double* distance, double* predecessors,
                                  std::int64_t columns) {
    const Vec sign = Vec::set(factor), offset = Vec::set(length), from = Vec::set(predecessor);
    Vec nearest = Vec::set(kInfinity);
    for (std::int64_t next = 0; next < columns; next += kWidth) {
      const std::int64_t j = clamp(next, columns);
      const Vec candidate = reduced(row, sign, v, j) - offset;
      const Vec known = Vec::load(distance + j);
      const Vec shortest = min(candidate, known);
      select(candidate < known, from, Vec::load(predecessors + j)).store(predecessors + j);
      shortest.store(distance + j);
      nearest = min(nearest, shortest);
    }
    return first(spread_min(nearest));
  }

  // The first column from `j` on whose distance is at most `reached`; `columns` if there is none.
  LWFM_TARGET static std::int64_t next_within(const double* distance, double reached,
                                              std::int64_t j, std::int64_t columns) {
    const Vec limit = Vec::set(reached);
    for (; j + kWidth <= columns; j += kWidth) {
      const std::uint64_t beyond = bits(limit < Vec::load(distance + j));
      const std::uint64_t within = beyond ^ ((std::uint64_t{1} << kWidth) - 1);
      if (within != 0) return j + __builtin_ctzll(within);
    }
    while (j < columns && distance[j] > reached) ++j;
    return j;
  }

 private:
  LWFM_TARGET static LWFM_INLINE TwoSmallest across_lanes(Vec best, Vec second, Vec index) {
    double bests[Vec::kWidth], seconds[Vec::kWidth], indices[Vec::kWidth];
    best.store(bests);
    second.store(seconds);
    index.store(indices);
    TwoSmallest result{bests[0], seconds[0], indices[0]};
    for (int k = 1; k < Vec::kWidth; ++k) {
      const bool earlier = bests[k] == result.first && indices[k] < result.first_index;
      if (bests[k] < result.first || earlier) {
        result.second = std::min(result.first, seconds[k]);
        result.first = bests[k];
        result.first_index = indices[k];
      } else {
        result.second = std::min(result.second, bests[k]);
      }
    }
    return result;
  }
};
