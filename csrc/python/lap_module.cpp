// lwfm._lap: NumPy arrays to the solver and back. lwfm/lap.py stands in front of it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/assignment.h"
#include "core/batch.h"
#include "core/failure.h"
#include "core/simd.h"

namespace py = pybind11;

namespace {

using lwfm::CostMatrix;
using lwfm::Duals;
using lwfm::Status;

template <class T>
struct Batch {
  const T* data;
  std::int64_t count;
  std::int64_t stride;
  CostMatrix<T> first;

  CostMatrix<T> problem(std::int64_t b) const {
    CostMatrix<T> cost = first;
    cost.data += b * stride;
    return cost;
  }
};

template <class T>
Batch<T> as_batch(const py::array& costs) {
  const auto stride = [&](int axis) {
    if (costs.strides(axis) % static_cast<py::ssize_t>(sizeof(T)) != 0) {
      throw std::invalid_argument("costs are not aligned to their item size");
    }
    return static_cast<std::int64_t>(costs.strides(axis) / static_cast<py::ssize_t>(sizeof(T)));
  };
  const T* data = static_cast<const T*>(costs.data());
  return {data,
          costs.shape(0),
          stride(0),
          {data, costs.shape(1), costs.shape(2), stride(1), stride(2)}};
}

// [B, N] assignments, [B] totals, and [B, N] and [B, M] duals where wanted.
struct Answer {
  std::int64_t* columns;
  double* totals;
  double* u;
  double* v;
};

template <class T>
void solve_range(const Batch<T>& batch, bool maximize, const Answer& answer, Status* statuses,
                 std::int64_t begin, std::int64_t end) {
  thread_local lwfm::Workspace workspace;
  for (std::int64_t b = begin; b < end; ++b) {
    const CostMatrix<T> cost = batch.problem(b);
    std::int64_t* columns = answer.columns + b * cost.rows;
    Duals duals;
    if (answer.u != nullptr) duals = {answer.u + b * cost.rows, answer.v + b * cost.columns};
    statuses[b] = lwfm::solve(cost, maximize, workspace, columns, duals);
    answer.totals[b] = lwfm::total_cost(cost, columns);
  }
}

// Problems per piece of work: enough that handing out a piece costs nothing beside solving it.
template <class T>
std::int64_t piece_length(const Batch<T>& batch) {
  const std::int64_t entries = std::max<std::int64_t>(1, batch.first.rows * batch.first.columns);
  return std::max<std::int64_t>(1, 16384 / entries);
}

template <class T>
void solve_batch(const py::array& costs, bool maximize, std::int64_t threads,
                 const std::string& name, bool single, const Answer& answer) {
  const Batch<T> batch = as_batch<T>(costs);
  std::vector<Status> statuses(static_cast<std::size_t>(batch.count), Status::ok);
  {
    py::gil_scoped_release unlocked;
    lwfm::share_work(batch.count, piece_length(batch), threads,
                     [&](std::int64_t begin, std::int64_t end) {
                       solve_range(batch, maximize, answer, statuses.data(), begin, end);
                     });
  }
  const auto bad = std::find_if(statuses.begin(), statuses.end(),
                                [](Status status) { return status != Status::ok; });
  if (bad == statuses.end()) return;
  if (*bad == Status::out_of_memory) throw std::bad_alloc();
  const std::int64_t b = bad - statuses.begin();
  std::vector<std::int64_t> index;
  if (!single) index.push_back(b);
  throw std::invalid_argument(
      lwfm::describe_failure(*bad, batch.problem(b), maximize, name, index));
}

using Solve = void (*)(const py::array&, bool, std::int64_t, const std::string&, bool,
                       const Answer&);

// The solver for the array's dtype, by kind and item size (32 * size + kind).
Solve solver_for(const py::array& costs) {
  const char kind = costs.dtype().kind();
  const auto size = costs.itemsize();
  if (kind == 'f' && size == 4) return solve_batch<float>;
  if (kind == 'f' && size == 8) return solve_batch<double>;
  if (kind == 'i' && size == 1) return solve_batch<std::int8_t>;
  if (kind == 'i' && size == 2) return solve_batch<std::int16_t>;
  if (kind == 'i' && size == 4) return solve_batch<std::int32_t>;
  if (kind == 'i' && size == 8) return solve_batch<std::int64_t>;
  if ((kind == 'u' || kind == 'b') && size == 1) return solve_batch<std::uint8_t>;
  if (kind == 'u' && size == 2) return solve_batch<std::uint16_t>;
  if (kind == 'u' && size == 4) return solve_batch<std::uint32_t>;
  if (kind == 'u' && size == 8) return solve_batch<std::uint64_t>;
  throw py::type_error("costs must be real numbers of at most 64 bits");
}

// costs [B, N, M] -> (columns [B, N], totals [B], u [B, N] or None, v [B, M] or None).
py::tuple solve(const py::array& costs, bool maximize, std::int64_t threads,
                const std::string& name, bool single, bool want_duals) {
  if (costs.ndim() != 3) throw std::invalid_argument("costs must have three dimensions");
  const py::ssize_t count = costs.shape(0);
  const py::ssize_t rows = costs.shape(1);
  const py::ssize_t columns = costs.shape(2);
  py::array_t<std::int64_t> assignment({count, rows});
  py::array_t<double> totals(count);
  Answer answer{assignment.mutable_data(), totals.mutable_data(), nullptr, nullptr};
  py::object u = py::none();
  py::object v = py::none();
  if (want_duals) {
    py::array_t<double> row_duals({count, rows});
    py::array_t<double> column_duals({count, columns});
    answer.u = row_duals.mutable_data();
    answer.v = column_duals.mutable_data();
    u = std::move(row_duals);
    v = std::move(column_duals);
  }
  solver_for(costs)(costs, maximize, threads, name, single, answer);
  return py::make_tuple(std::move(assignment), std::move(totals), u, v);
}

}  // namespace

PYBIND11_MODULE(_lap, module) {
  module.doc() = "The batched linear assignment solver behind lwfm.lap.";
  module.def("solve", &solve, py::arg("costs"), py::arg("maximize"), py::arg("threads"),
             py::arg("name"), py::arg("single"), py::arg("want_duals"));
  module.def("simd_level", [] { return lwfm::name_of(lwfm::simd_level()); });
}
