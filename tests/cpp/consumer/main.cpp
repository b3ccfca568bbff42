// A program of a user of the installed package, with every public header; exits with 0 if a 3 x 3
// problem is solved.
#include <core/assignment.h>
#include <core/bottleneck.h>
#include <core/interruption.h>
#include <core/ranking.h>
#include <core/sparse.h>
#include <core/thread_pool.h>
#include <core/transport.h>

#include <cstdint>

int main() {
  const double entries[] = {4, 1, 3, 2, 0, 5, 3, 2, 2};
  const lwfm::CostMatrix<double> cost{entries, 3, 3, 3, 1};
  lwfm::Workspace workspace;
  std::int64_t assignment[3];
  if (lwfm::solve(cost, {}, workspace, assignment) != lwfm::Status::ok) return 1;
  return lwfm::total_cost(cost, assignment) == 5 ? 0 : 2;
}
