// The basis of a transport problem: a spanning tree of rows and columns, its flows and duals.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

namespace lwfm {

// Rows are nodes 0 to rows - 1, columns the nodes after them. Nodes are kept in an order in which
// all that is below a node follows it, so that to visit it is to read an array.
class SpanningTree {
 public:
  using Index = std::int32_t;

  // How the first tree is made: an arc that joins a line (a node) to a partner of a later step.
  struct Step {
    Index line, partner;
    std::int64_t flow;
  };

  // Makes the tree of these steps; the partner of the last one is the root. `padding` more columns
  // have duals of zero.
  void build(std::int64_t rows, const std::vector<Step>& steps, std::int64_t padding) {
    rows_ = static_cast<Index>(rows);
    const std::size_t count = steps.size() + 1;
    nodes_.assign(count, Node{-1, 0, 1, 0});
    order_.resize(count);
    moved_.resize(count);
    duals_.assign(count + static_cast<std::size_t>(padding), 0.0);
    bounds_.assign(duals_.size(), 0.0);
    for (const Step& step : steps) at(step.partner).size += at(step.line).size;
    // Where the next node below each goes.
    std::vector<Index>& next = moved_;
    const Index root = steps.back().partner;
    place(root, 0);
    next[static_cast<std::size_t>(root)] = 1;
    for (std::size_t k = steps.size(); k-- > 0;) {
      const auto [line, partner, flow] = steps[k];
      Index& position = next[static_cast<std::size_t>(partner)];
      at(line).parent = partner;
      at(line).flow = flow;
      place(line, position);
      next[static_cast<std::size_t>(line)] = position + 1;
      position += at(line).size;
    }
  }

  Index rows() const { return rows_; }
  bool is_row(Index node) const { return node < rows_; }
  // -1: the root
  Index parent(Index node) const { return at(node).parent; }
  // All nodes, parents first.
  const std::vector<Index>& order() const { return order_; }

  // u and v: their sum is the cost of every arc of the tree.
  double dual(Index node) const { return duals_[static_cast<std::size_t>(node)]; }

  // The duals less what rounding may have added: an entry of cost below the sum of two of these is
  // certainly below the sum of the duals. Those of the columns are adjacent.
  const double* bounds() const { return bounds_.data(); }

  // How far the bounds are from the duals, relative to them.
  void set_tolerance(double tolerance) { tolerance_ = tolerance; }

  // Computes all duals from 0 at the root. cost(row, column) is an entry.
  template <class Cost>
  void settle(const Cost& cost) {
    set_dual(order_[0], 0.0);
    for (std::size_t k = 1; k < order_.size(); ++k) {
      const Index node = order_[k], above = parent(node);
      const double entry = is_row(node) ? cost(node, above - rows_) : cost(above, node - rows_);
      set_dual(node, entry - dual(above));
    }
  }

  // Puts the arc from a row to a column into the tree, sends as much flow through it as the cycle
  // that it closes allows, and takes out the arc that this empties. `reduced` is its reduced cost.
  // Returns how much work that was, in entries.
  std::int64_t pivot(Index row, Index column, double reduced) {
    const Leaving leaving = find_leaving(row, column);
    const std::int64_t flow = at(leaving.node).flow;
    // What lies below the leaving arc comes below the entering one.
    const Index inside = leaving.beside_row ? row : column;
    const Index outside = leaving.beside_row ? column : row;
    const Index count = at(leaving.node).size;
    send(outside, leaving.top, flow, count);
    send(parent(leaving.node), leaving.top, -flow, -count);
    const Index from = at(leaving.node).position;
    turn_around(inside, leaving.node, outside, flow);
    const Index to = move_block(from, count, outside);
    shift_duals(to, count, leaving.beside_row ? reduced : -reduced);
    return static_cast<std::int64_t>(order_.size());
  }

 private:
  struct Node {
    Index parent;
    Index position;     // in the order
    Index size;         // of what is below it, itself included
    std::int64_t flow;  // on the arc to the parent, from its row to its column
  };

  struct Leaving {
    Index node;       // the lower end of the arc
    Index top;        // of the cycle
    bool beside_row;  // on the row's path to the top, not on the column's
  };

  Node& at(Index node) { return nodes_[static_cast<std::size_t>(node)]; }
  const Node& at(Index node) const { return nodes_[static_cast<std::size_t>(node)]; }
  Index& order_at(Index position) { return order_[static_cast<std::size_t>(position)]; }

  void place(Index node, Index position) {
    order_at(position) = node;
    at(node).position = position;
  }

  void set_dual(Index node, double dual) {
    duals_[static_cast<std::size_t>(node)] = dual;
    bounds_[static_cast<std::size_t>(node)] = dual - tolerance_ * std::fabs(dual);
  }

  // Around the cycle flow decreases on arcs above rows on the row's path, above columns on the
  // column's, and increases on the others.
  Leaving find_leaving(Index row, Index column) const {
    Leaving leaving{-1, row, true};
    std::int64_t smallest = std::numeric_limits<std::int64_t>::max();
    const Index position = at(column).position;
    for (;; leaving.top = at(leaving.top).parent) {
      const Node& node = at(leaving.top);
      if (static_cast<std::uint32_t>(position - node.position) <
          static_cast<std::uint32_t>(node.size)) {
        break;  // the column is below
      }
      if (is_row(leaving.top) && node.flow < smallest) {
        smallest = node.flow;
        leaving.node = leaving.top;
      }
    }
    for (Index b = column; b != leaving.top; b = parent(b)) {
      if (!is_row(b) && at(b).flow < smallest) {
        smallest = at(b).flow;
        leaving.node = b;
        leaving.beside_row = false;
      }
    }
    return leaving;
  }

  // Along the path from a node up to `top` flow decreases and increases in turn, and sizes grow.
  void send(Index from, Index top, std::int64_t flow, Index count) {
    for (Index node = from; node != top; node = parent(node)) {
      at(node).flow -= flow;
      at(node).size += count;
      flow = -flow;
    }
  }

  // Sends flow from `inside` up to `last`, turns this path around, below `outside`, and leaves in
  // `moved_` the new order of what was below `last`.
  void turn_around(Index inside, Index last, Index outside, std::int64_t flow) {
    const Index count = at(last).size;
    auto to = moved_.begin();
    Index begin = at(inside).position, end = begin;  // of what is in `moved_`
    std::int64_t change = -flow, carried = flow;
    for (Index node = inside, above = outside, below = 0;;) {
      Node& own = at(node);
      const Index next = own.parent, size = own.size;
      to = std::copy(order_.begin() + own.position, order_.begin() + begin, to);
      to = std::copy(order_.begin() + end, order_.begin() + own.position + size, to);
      begin = own.position;
      end = begin + size;
      own.size = count - below;
      below = size;
      own.parent = above;
      own.flow += change;
      change = -change;
      std::swap(own.flow, carried);
      if (node == last) return;
      above = node;
      node = next;
    }
  }

  // Moves `count` nodes in the order of `moved_` from a position to below `parent`, as its first or
  // last child, whichever is nearer; returns where they are then.
  Index move_block(Index from, Index count, Index parent) {
    // Without the block, whose size the parent's counts already.
    const Index above = at(parent).position - (at(parent).position > from ? count : 0);
    const Index first = above + 1, last = above + at(parent).size - count;
    const Index to = std::abs(from - first) <= std::abs(from - last) ? first : last;
    if (to <= from) {
      std::copy_backward(order_.begin() + to, order_.begin() + from, order_.begin() + from + count);
    } else {
      std::copy(order_.begin() + from + count, order_.begin() + to + count, order_.begin() + from);
    }
    std::copy_n(moved_.begin(), count, order_.begin() + to);
    const Index begin = std::min(from, to), end = std::max(from, to) + count;
    for (Index k = begin; k < end; ++k) at(order_at(k)).position = k;
    return to;
  }

  // Rows of a block of the order gain `shift`, columns lose it; or the others do the opposite.
  void shift_duals(Index begin, Index count, double shift) {
    const auto all = static_cast<Index>(order_.size());
    if (2 * count <= all) return shift_range(begin, begin + count, shift);
    shift_range(0, begin, -shift);
    shift_range(begin + count, all, -shift);
  }

  void shift_range(Index begin, Index end, double shift) {
    for (Index k = begin; k < end; ++k) {
      const Index node = order_at(k);
      set_dual(node, dual(node) + (is_row(node) ? shift : -shift));
    }
  }

  Index rows_ = 0;
  double tolerance_ = 0.0;
  std::vector<Node> nodes_;
  std::vector<Index> order_, moved_;
  std::vector<double> duals_, bounds_;
};

}  // namespace lwfm
