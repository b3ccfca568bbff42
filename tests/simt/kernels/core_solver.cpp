#include "core_solver.h"

#include "core/assignment.h"

namespace simt {

template <class T>
lwfm::Status solve_by_core(const lwfm::CostMatrix<T>& cost, bool maximize,
                           std::int64_t* assignment) {
  lwfm::Workspace workspace;
  return lwfm::solve(cost, {maximize}, workspace, assignment);
}

template lwfm::Status solve_by_core(const lwfm::CostMatrix<float>&, bool, std::int64_t*);
template lwfm::Status solve_by_core(const lwfm::CostMatrix<double>&, bool, std::int64_t*);

}  // namespace simt
