// lwfm::linear_assignment: cost [..., N, M] -> column of each row [..., N], int64.
#include "linear_assignment.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <stdexcept>
#include <vector>

#include "core/assignment.h"
#include "core/assignment/error_message.h"
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

// Counts the problems that torch's threads have left. The caller waits for them here rather than in
// torch, so that Ctrl-C ends its waiting too.
class Progress {
 public:
  Progress(std::int64_t problems, lwfm::Interruption& interruption)
      : left_(problems), interruption_(interruption) {}

  // After this thread's share.
  void finish(std::int64_t problems) {
    std::unique_lock<std::mutex> lock(mutex_);
    left_ -= problems;
    if (left_ == 0) return done_.notify_one();
    if (!interruption_.polls()) return;
    while (!done_.wait_for(lock, lwfm::Interruption::kPeriod, [this] { return left_ == 0; })) {
      lock.unlock();
      interruption_.update();
      lock.lock();
    }
  }

 private:
  std::int64_t left_;  // guarded by mutex_
  lwfm::Interruption& interruption_;
  std::mutex mutex_;
  std::condition_variable done_;
};

template <class T>
void solve_all(const Tensor& cost, bool maximize, std::int64_t* assignment) {
  const Matrices<T> matrices(cost);
  std::vector<Status> statuses(static_cast<std::size_t>(matrices.count()), Status::ok);
  // Fewer large problems than threads: one at a time, on all of them.
  lwfm::Interruption interruption = lwfm::interruption_by_signals();
  lwfm::Options options{maximize};
  options.interruption = &interruption;
  const auto threads = static_cast<std::int64_t>(torch::stable::get_num_threads());
  const std::int64_t longest_side = std::max(matrices.rows(), matrices.columns());
  const bool together = matrices.count() < threads && lwfm::team_size(longest_side, threads) > 1;
  if (together) options.threads = threads;
  const std::int64_t entries = std::max<std::int64_t>(1, matrices.rows() * matrices.columns());
  const std::int64_t grain =
      together ? matrices.count() : std::max<std::int64_t>(1, 16384 / entries);
  Progress progress(matrices.count(), interruption);
  torch::stable::parallel_for(
      0, matrices.count(), grain, [&](std::int64_t begin, std::int64_t end) {
        lwfm::WorkspaceOfThread workspace;
        for (std::int64_t b = begin; b < end && !interruption.requested(); ++b) {
          statuses[static_cast<std::size_t>(b)] = lwfm::solve(
              matrices.problem(b), options, *workspace, assignment + b * matrices.rows());
        }
        progress.finish(end - begin);
      });
  if (interruption.requested()) throw std::runtime_error("linear_assignment: interrupted");
  const auto bad = std::find_if(statuses.begin(), statuses.end(),
                                [](Status status) { return status != Status::ok; });
  if (bad == statuses.end()) return;
  if (*bad == Status::out_of_memory) throw std::bad_alloc();
  const std::int64_t b = bad - statuses.begin();
  throw std::invalid_argument(lwfm::describe_failure(*bad, matrices.problem(b), maximize, "cost",
                                                     matrices.batch().index_of(b)));
}

using SolveAll = void (*)(const Tensor&, bool, std::int64_t*);

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

}  // namespace

namespace lwfm {

Tensor linear_assignment_cpu(const Tensor& cost, bool maximize) {
  const std::int64_t dim = cost.dim();
  if (dim < 2) throw std::invalid_argument("linear_assignment: cost must be [..., N, M]");
  Tensor input = cost;
  ScalarType dtype = cost.scalar_type();
  if (dtype == ScalarType::Half || dtype == ScalarType::BFloat16) {
    dtype = ScalarType::Float;
    input = torch::stable::to(cost, dtype);
  }
  const SolveAll solve = solver_for(dtype);
  const auto sizes = cost.sizes();
  const std::vector<std::int64_t> shape(sizes.begin(), sizes.end() - 1);
  Tensor assignment = torch::stable::new_empty(input, shape, ScalarType::Long);
  solve(input, maximize, static_cast<std::int64_t*>(assignment.mutable_data_ptr()));
  return assignment;
}

}  // namespace lwfm

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def("linear_assignment(Tensor cost, bool maximize=False) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("linear_assignment", TORCH_BOX(&lwfm::linear_assignment_cpu));
}
