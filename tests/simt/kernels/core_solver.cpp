#include "core_solver.h"

#include "core/assignment.h"

namespace simt {

template <class T>
lwfm::Status solve_by_core(const lwfm::CostMatrix<T>& cost, bool maximize, double cost_limit,
                           std::int64_t* assignment, double* u, double* v) {
  lwfm::Workspace workspace;
  lwfm::Options options{maximize};
  options.cost_limit = cost_limit;
  return lwfm::solve(cost, options, workspace, assignment, {u, v});
}

template lwfm::Status solve_by_core(const lwfm::CostMatrix<float>&, bool, double, std::int64_t*,
                                    double*, double*);
template lwfm::Status solve_by_core(const lwfm::CostMatrix<double>&, bool, double, std::int64_t*,
                                    double*, double*);

}  // namespace simt
