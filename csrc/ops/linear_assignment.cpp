// lwfm::linear_assignment: cost [..., N, M] -> column of each row [..., N], int64; and
// lwfm::linear_assignment_duals, which also returns the duals [..., N] and [..., M], float64.
#include "linear_assignment.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "core/assignment.h"
#include "core/assignment/error_message.h"
#include "problem_threads.h"
#include "signals.h"
#include "tensor_views.h"

namespace {

using lwfm::CostMatrix;
using lwfm::ScalarType;
using lwfm::Status;
using torch::stable::Tensor;

// A tensor [..., N, M] of any strides as a sequence of matrices.
template <class T>
class Matrices {
 public:
  explicit Matrices(const Tensor& cost) : batch_(cost, 2), first_{} {
    const std::int64_t d = cost.dim() - 2;
    first_ = {static_cast<const T*>(cost.const_data_ptr()), cost.size(d), cost.size(d + 1),
              cost.stride(d), cost.stride(d + 1)};
  }

  const lwfm::Batch& batch() const { return batch_; }
  std::int64_t count() const { return batch_.count(); }
  std::int64_t rows() const { return first_.rows; }
  std::int64_t columns() const { return first_.columns; }

  CostMatrix<T> problem(std::int64_t b) const {
    CostMatrix<T> cost = first_;
    cost.data += batch_.offset(b);
    return cost;
  }

 private:
  lwfm::Batch batch_;
  CostMatrix<T> first_;
};

// Where to put the answers of all problems, contiguous; u and v are null unless wanted, or where
// they are empty.
struct Outputs {
  std::int64_t* assignment;  // [count, rows]
  double *u, *v;             // [count, rows], [count, columns]

  lwfm::Duals duals(std::int64_t b, std::int64_t rows, std::int64_t columns) const {
    return {u == nullptr ? u : u + b * rows, v == nullptr ? v : v + b * columns};
  }
};

template <class T>
void solve_all(const Tensor& cost, lwfm::Options options, const Outputs& outputs) {
  const Matrices<T> matrices(cost);
  const std::int64_t rows = matrices.rows(), columns = matrices.columns();
  std::vector<Status> statuses(static_cast<std::size_t>(matrices.count()), Status::ok);
  lwfm::Interruption interruption = lwfm::interruption_by_signals();
  options.interruption = &interruption;
  // Fewer large problems than threads: one at a time, on all of them.
  const auto threads = static_cast<std::int64_t>(torch::stable::get_num_threads());
  const bool together =
      matrices.count() < threads && lwfm::team_size(std::max(rows, columns), threads) > 1;
  if (together) options.threads = threads;
  const std::int64_t entries = std::max<std::int64_t>(1, rows * columns);
  const std::int64_t grain =
      together ? matrices.count() : std::max<std::int64_t>(1, 16384 / entries);
  lwfm::solve_on_threads(
      matrices.count(), grain, interruption, [&](std::int64_t begin, std::int64_t end) {
        lwfm::WorkspaceOfThread workspace;
        for (std::int64_t b = begin; b < end && !interruption.requested(); ++b) {
          statuses[static_cast<std::size_t>(b)] =
              lwfm::solve(matrices.problem(b), options, *workspace, outputs.assignment + b * rows,
                          outputs.duals(b, rows, columns));
        }
      });
  if (interruption.requested()) throw std::runtime_error("linear_assignment: interrupted");
  const auto bad = std::find_if(statuses.begin(), statuses.end(),
                                [](Status status) { return status != Status::ok; });
  if (bad == statuses.end()) return;
  if (*bad == Status::out_of_memory) throw std::bad_alloc();
  const std::int64_t b = bad - statuses.begin();
  throw std::invalid_argument(lwfm::describe_failure(*bad, matrices.problem(b), options.maximize,
                                                     "cost", matrices.batch().index_of(b)));
}

using SolveAll = void (*)(const Tensor&, lwfm::Options, const Outputs&);

SolveAll solver_for(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return solve_all<float>;
    case ScalarType::Double:
      return solve_all<double>;
    case ScalarType::Char:
      return solve_all<std::int8_t>;
    case ScalarType::Short:
      return solve_all<std::int16_t>;
    case ScalarType::Int:
      return solve_all<std::int32_t>;
    case ScalarType::Long:
      return solve_all<std::int64_t>;
    case ScalarType::UInt16:
      return solve_all<std::uint16_t>;
    case ScalarType::UInt32:
      return solve_all<std::uint32_t>;
    case ScalarType::UInt64:
      return solve_all<std::uint64_t>;
    case ScalarType::Bool:
    case ScalarType::Byte:
      return solve_all<std::uint8_t>;
    default:
      throw std::invalid_argument(
          "linear_assignment: cost must be a floating-point, integer or bool tensor");
  }
}

lwfm::Options options_of(bool maximize, std::optional<double> cost_limit) {
  lwfm::Options options{maximize};
  options.cost_limit = cost_limit.value_or(lwfm::kInfinity);
  if (!(options.cost_limit > -lwfm::kInfinity)) {
    throw std::invalid_argument(
        "linear_assignment: cost_limit must be a finite number, or None or inf for no limit");
  }
  return options;
}

Tensor assign_on_cpu(const Tensor& cost, bool maximize, std::optional<double> cost_limit) {
  return lwfm::linear_assignment_cpu(cost, maximize, cost_limit, false).assignment;
}

std::tuple<Tensor, Tensor, Tensor> assign_with_duals_on_cpu(const Tensor& cost, bool maximize,
                                                            std::optional<double> cost_limit) {
  return lwfm::linear_assignment_cpu(cost, maximize, cost_limit, true).all();
}

}  // namespace

namespace lwfm {

AssignmentTensors new_assignment_tensors(const Tensor& cost, bool duals) {
  const auto sizes = cost.sizes();
  std::vector<std::int64_t> of_rows(sizes.begin(), sizes.end() - 1), of_columns(of_rows);
  of_columns.back() = sizes.back();
  AssignmentTensors tensors{torch::stable::new_empty(cost, of_rows, ScalarType::Long), {}, {}};
  if (duals) {
    tensors.u = torch::stable::new_empty(cost, of_rows, ScalarType::Double);
    tensors.v = torch::stable::new_empty(cost, of_columns, ScalarType::Double);
  }
  return tensors;
}

AssignmentTensors linear_assignment_cpu(const Tensor& cost, bool maximize,
                                        std::optional<double> cost_limit, bool duals) {
  if (cost.dim() < 2) throw std::invalid_argument("linear_assignment: cost must be [..., N, M]");
  const lwfm::Options options = options_of(maximize, cost_limit);
  Tensor input = cost;
  ScalarType dtype = cost.scalar_type();
  if (dtype == ScalarType::Half || dtype == ScalarType::BFloat16) {
    dtype = ScalarType::Float;
    input = torch::stable::to(cost, dtype);
  }
  const SolveAll solve = solver_for(dtype);
  AssignmentTensors tensors = new_assignment_tensors(input, duals);
  Outputs outputs{data_of<std::int64_t>(tensors.assignment), nullptr, nullptr};
  if (duals) {
    outputs.u = data_of<double>(*tensors.u);
    outputs.v = data_of<double>(*tensors.v);
  }
  solve(input, options, outputs);
  return tensors;
}

}  // namespace lwfm

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "linear_assignment(Tensor cost, bool maximize=False, float? cost_limit=None) -> Tensor");
  library.def(
      "linear_assignment_duals(Tensor cost, bool maximize=False, float? cost_limit=None)"
      " -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("linear_assignment", TORCH_BOX(&assign_on_cpu));
  library.impl("linear_assignment_duals", TORCH_BOX(&assign_with_duals_on_cpu));
}
