// The pass over a row of costs that the simplex method is made of. Included once per instruction
// set, inside a namespace that defines Vec (a vector of doubles) and with LWFM_TARGET set to the
// function attribute it needs. No include guard on purpose.

struct Pricing {
  // Whether an entry of the row less its column's dual is below `bound`. The length is a multiple
  // of the widest vector.
  LWFM_TARGET static bool any_below(const double* row, const double* v, double bound,
                                    std::int64_t length) {
    const Vec limit = Vec::set(bound);
    std::uint64_t below = 0;
    for (std::int64_t j = 0; j < length; j += Vec::kWidth) {
      below |= bits(Vec::load(row + j) - Vec::load(v + j) < limit);
    }
    return below != 0;
  }

  // The passes of the assignment solver, and a pivot of few lines.
  using Rows = Scan;
  using Small = SmallPivot;
};
