// A pivot of a SmallBasis. Included once per instruction set, with LWFM_TARGET set to the function
// attribute it needs: the loops are for the compiler to vectorize. No include guard on purpose.

struct SmallPivot {
  // Puts the arc from row i to column j (a node) into the tree, sends as much flow through it as
  // the cycle that it closes allows, and takes out the arc that this empties. `reduced` is its
  // reduced cost.
  LWFM_TARGET static void change(SmallBasis& basis, std::int64_t i, std::int64_t j,
                                 double reduced) {
    const std::uint64_t row_along = basis.along[i], row_against = basis.against[i];
    const std::uint64_t column_along = basis.along[j], column_against = basis.against[j];
    // The cycle runs from the row to the column, up the column's path and down the row's.
    const std::uint64_t more = (column_along & ~row_along) | (row_against & ~column_against);
    const std::uint64_t less = (column_against & ~row_against) | (row_along & ~column_along);
    const int leaving = smallest_flow(basis, less);
    const std::int64_t flow = basis.flow[leaving];
    for (std::int64_t k = 0; k < basis.padded; ++k) {
      basis.flow[k] += (flow & -static_cast<std::int64_t>(more >> k & 1)) -
                       (flow & -static_cast<std::int64_t>(less >> k & 1));
    }
    basis.flow[leaving] = flow;
    basis.row[leaving] = static_cast<std::int32_t>(i);
    basis.column[leaving] = static_cast<std::int32_t>(j);
    // The entering arc takes the number of the leaving one, and its direction on every path.
    const std::uint64_t bit = std::uint64_t{1} << leaving;
    turn_paths(basis, leaving, more, less & ~bit, (row_along & bit) != 0 ? reduced : -reduced);
  }

 private:
  LWFM_TARGET static LWFM_INLINE int smallest_flow(const SmallBasis& basis, std::uint64_t arcs) {
    int smallest = __builtin_ctzll(arcs);
    for (arcs &= arcs - 1; arcs != 0; arcs &= arcs - 1) {
      const int k = __builtin_ctzll(arcs);
      smallest = basis.flow[k] < basis.flow[smallest] ? k : smallest;
    }
    return smallest;
  }

  // Adds the cycle to the paths through the leaving arc, in its direction or the other, so that it
  // cancels out; rows of these gain `shift`, columns lose it.
  LWFM_TARGET static LWFM_INLINE void turn_paths(SmallBasis& basis, int leaving, std::uint64_t more,
                                                 std::uint64_t less, double shift) {
    const double tolerance = basis.tolerance;
    for (std::int64_t node = 0; node < basis.padded; ++node) {
      const std::uint64_t along = basis.along[node], against = basis.against[node];
      const std::uint64_t with = -(along >> leaving & 1), other = -(against >> leaving & 1);
      const std::uint64_t add = (more & with) | (less & other);
      const std::uint64_t remove = (less & with) | (more & other);
      basis.along[node] = (along & ~remove) | (add & ~against);
      basis.against[node] = (against & ~add) | (remove & ~along);
      const double moved = (with | other) != 0 ? shift : 0.0;
      const double dual = basis.dual[node] + basis.sign[node] * moved;
      basis.dual[node] = dual;
      basis.bound[node] = dual - tolerance * std::fabs(dual);
    }
  }
};
