// Options and optional outputs of one problem.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/assignment/limits.h"
#include "core/interruption.h"

namespace lwfm {

struct Options {
  bool maximize = false;
  // Finite: a pair is made only if it pays. Each row and column left unmatched costs half the limit
  // (earns it, when maximizing), and this is optimized jointly with the pairs.
  double cost_limit = kInfinity;
  // Column duals [columns] to start from instead of column minima, for example those of a similar
  // problem solved before; null: none. Any finite numbers are right. A hint for speed: problems
  // that are rectangular, limited or small do without.
  const double* warm_v = nullptr;
  // The column of each row [rows] in the answer to a similar problem, -1 for none; null: none. Any
  // integers are right; used where warm_v would be, and not together with it.
  const std::int64_t* warm_columns = nullptr;

  // Threads that may share one large problem, the calling one among them. The answer is the same.
  std::int64_t threads = 1;

  // Lets the caller end the call early; null: it runs to its end.
  Interruption* interruption = nullptr;
  // Written where the call ended early, if not null: what the duals prove about the objective, a
  // lower bound (an upper one, when maximizing); infinite if they prove nothing yet. The objective
  // is the total and, with a cost limit, the price of the rows and columns left unmatched.
  double* bound = nullptr;

  bool limited() const { return std::isfinite(cost_limit); }
};

// Where to put the dual variables: u [rows], v [columns]. Both null: not wanted. An empty one may
// be.
struct Duals {
  double* u = nullptr;
  double* v = nullptr;

  bool wanted() const { return u != nullptr || v != nullptr; }
};

}  // namespace lwfm
