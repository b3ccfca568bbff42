// The solver of the core, as the answer to compare kernels with. It has a file of its own,
// which sanitizers do not instrument: that would take the compiler a minute, and the solver has
// sanitizer tests of its own.
#pragma once

#include <cstdint>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/status.h"

namespace simt {

// Writes the column of each row, -1 for a row without one, and the duals u [rows] and v [columns],
// with a cost limit unless it is infinite. T is float or double.
template <class T>
lwfm::Status solve_by_core(const lwfm::CostMatrix<T>& cost, bool maximize, double cost_limit,
                           std::int64_t* assignment, double* u, double* v);

}  // namespace simt
