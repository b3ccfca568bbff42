// Bindings of the bottleneck assignment.
#include "core/bottleneck.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "calls.h"
#include "core/thread_pool.h"
#include "problems.h"

namespace lwfm::python {
namespace {

// Solves costs [B, N, M] into columns [B, N] and the largest chosen costs, values [B]; returns
// whether it did in time, and else writes what is known to bounds [B].
bool solve_bottlenecks(const py::array& costs, bool maximize, bool lexicographic,
                       std::int64_t threads, const std::string& name, bool single, Indices columns,
                       Numbers values, std::optional<double> time_limit, Numbers bounds) {
  Interruption interruption = make_interruption(time_limit);
  const BottleneckOptions options{maximize, lexicographic, &interruption};
  const std::int64_t count = costs.shape(0), rows = costs.shape(1);
  std::vector<Status> statuses(static_cast<std::size_t>(count), Status::interrupted);
  return with_matrices(costs, [&](const auto& matrices) {
    std::int64_t* const to = columns.mutable_data();
    double* const value = values.mutable_data();
    double* const bound = bounds.mutable_data();
    {
      const py::gil_scoped_release unlocked;
      const auto work = [&](std::int64_t begin, std::int64_t end) {
        WorkspaceOfThread workspace;
        for (std::int64_t b = begin; b < end; ++b) {
          const auto cost = matrices[b];
          const Status status =
              solve_bottleneck(cost, options, *workspace, to + b * rows, bound[b]);
          statuses[static_cast<std::size_t>(b)] = status;
          if (status != Status::ok) continue;
          value[b] = bound[b] = largest_cost(cost, maximize, to + b * rows);
        }
      };
      share_work(count, piece_length(costs), threads, work, &interruption);
    }
    if (!ended_in_time(interruption)) return false;
    check_statuses(statuses, matrices, maximize, name, single);
    return true;
  });
}

}  // namespace

void add_bottleneck(py::module_& module) {
  module.def("solve_bottlenecks", &solve_bottlenecks, py::arg("costs"), py::arg("maximize"),
             py::arg("lexicographic"), py::arg("threads"), py::arg("name"), py::arg("single"),
             py::arg("columns").noconvert(), py::arg("values").noconvert(), py::arg("time_limit"),
             py::arg("bounds").noconvert());
}

}  // namespace lwfm::python
