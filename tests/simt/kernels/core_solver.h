// The solver of the core, as the answer to compare kernels with. It has a file of its own,
// which sanitizers do not instrument: that would take the compiler a minute, and the solver has
// sanitizer tests of its own.
#pragma once

#include <cstdint>

#include "core/assignment/cost_matrix.h"
#include "core/assignment/status.h"

namespace simt {

// Writes the column of each row, -1 for a row without one. T is float or double.
template <class T>
lwfm::Status solve_by_core(const lwfm::CostMatrix<T>& cost, bool maximize,
                           std::int64_t* assignment);

}  // namespace simt
