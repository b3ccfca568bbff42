// A row of a small cost matrix: R vectors side by side, a lane for each column. It is a chain of
// single members because compilers keep arrays of vectors in memory. Included once per instruction
// set, inside a namespace that defines Vec and with LWFM_TARGET set to the function attribute it
// needs. No include guard on purpose.

template <int R>
struct Row {
  Vec head;
  Row<R - 1> rest;
};
template <>
struct Row<0> {};

template <int R>
struct RowMask {
  Vec::Mask head;
  RowMask<R - 1> rest;
};
template <>
struct RowMask<0> {};

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> set_row(double value) {
  if constexpr (R > 0)
    return {Vec::set(value), set_row<R - 1>(value)};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> count_row(double first = 0.0) {
  if constexpr (R > 0)
    return {Vec::count_from(first), count_row<R - 1>(first + Vec::kWidth)};
  else
    return {};
}

template <int R, class T>
LWFM_TARGET LWFM_INLINE Row<R> load_row(const T* from) {
  if constexpr (R > 0)
    return {Vec::load(from), load_row<R - 1>(from + Vec::kWidth)};
  else
    return {};
}

// The first `count` entries, and zeros; only the last kPartial vectors can need these.
template <int R, int kPartial, class T>
LWFM_TARGET LWFM_INLINE Row<R> load_row(const T* from, int count) {
  if constexpr (R > kPartial) {
    return {Vec::load(from), load_row<R - 1, kPartial>(from + Vec::kWidth, count - Vec::kWidth)};
  } else if constexpr (R > 0) {
    return {Vec::load_first(from, count),
            load_row<R - 1, kPartial>(from + Vec::kWidth, count - Vec::kWidth)};
  } else {
    return {};
  }
}

template <int R>
LWFM_TARGET LWFM_INLINE void store(Row<R> row, double* to) {
  if constexpr (R > 0) {
    row.head.store(to);
    store(row.rest, to + Vec::kWidth);
  }
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> operator+(Row<R> a, Row<R> b) {
  if constexpr (R > 0)
    return {a.head + b.head, a.rest + b.rest};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> operator-(Row<R> a, Row<R> b) {
  if constexpr (R > 0)
    return {a.head - b.head, a.rest - b.rest};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> min(Row<R> a, Row<R> b) {
  if constexpr (R > 0)
    return {min(a.head, b.head), min(a.rest, b.rest)};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> max(Row<R> a, Row<R> b) {
  if constexpr (R > 0)
    return {max(a.head, b.head), max(a.rest, b.rest)};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> operator-(Row<R> a, Vec b) {
  if constexpr (R > 0)
    return {a.head - b, a.rest - b};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> operator*(Row<R> a, Vec b) {
  if constexpr (R > 0)
    return {a.head * b, a.rest * b};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE RowMask<R> operator<(Row<R> a, Row<R> b) {
  if constexpr (R > 0)
    return {a.head < b.head, a.rest < b.rest};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE RowMask<R> operator==(Row<R> a, Row<R> b) {
  if constexpr (R > 0)
    return {a.head == b.head, a.rest == b.rest};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE RowMask<R> operator==(Row<R> a, Vec b) {
  if constexpr (R > 0)
    return {a.head == b, a.rest == b};
  else
    return {};
}

template <int R>
LWFM_TARGET LWFM_INLINE Row<R> select(RowMask<R> m, Row<R> yes, Row<R> no) {
  if constexpr (R > 0) {
    return {select(m.head, yes.head, no.head), select(m.rest, yes.rest, no.rest)};
  } else {
    return {};
  }
}

// One bit per lane, the first lane lowest.
template <int R>
LWFM_TARGET LWFM_INLINE std::uint64_t bits(RowMask<R> m) {
  if constexpr (R > 0)
    return bits(m.head) | bits(m.rest) << Vec::kWidth;
  else
    return 0;
}

// The smallest entry, in every lane.
template <int R>
LWFM_TARGET LWFM_INLINE Vec smallest_of(Row<R> row) {
  if constexpr (R == 1)
    return spread_min(row.head);
  else
    return smallest_of(Row<R - 1>{min(row.head, row.rest.head), row.rest.rest});
}
