// lwfm._lap: bindings to NumPy arrays, of the solver and of episodes. lwfm.lap and lwfm.lite have
// checked ranks, dtypes, options and sparse structure.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "calls.h"
#include "core/interruption.h"
#include "core/simd/simd.h"
#include "core/sparse.h"
#include "core/thread_pool.h"
#include "problems.h"

namespace {

namespace py = pybind11;
using lwfm::Options;
using lwfm::Status;
using lwfm::python::Answers;
using lwfm::python::Indices;
using lwfm::python::Numbers;
using lwfm::python::Problems;

// Calls work(begin, end, own) on pieces of 0..count, with options of its own: several problems at a
// time, one thread each, or, of fewer large problems than threads, one at a time on all threads.
template <class Work>
void share_problems(std::int64_t count, std::int64_t piece, std::int64_t longest_side,
                    std::int64_t threads, Options options, const Work& work) {
  if (count < threads && lwfm::team_size(longest_side, threads) > 1) {
    options.threads = threads;
    piece = count;
  }
  lwfm::share_work(
      count, piece, threads,
      [&](std::int64_t begin, std::int64_t end) { work(begin, end, options); },
      options.interruption);
}

// Solves costs [B, N, M] into columns [B, N], totals [B] and, where given, u [B, N], v [B, M];
// returns whether it did in time, and else writes what is known to bounds [B]. `warm_v` [B, M] and
// `warm_columns` [B, N] are what to start from. `name` is the argument in messages, which give the
// place in the batch unless the batch is a single matrix of the caller's.
bool solve(const py::array& costs, bool maximize, double cost_limit, std::int64_t threads,
           const std::string& name, bool single, Indices columns, Numbers totals,
           std::optional<Numbers> u, std::optional<Numbers> v, std::optional<Numbers> warm_v,
           std::optional<Indices> warm_columns, std::optional<double> time_limit,
           std::optional<Numbers> bounds) {
  lwfm::Interruption interruption = lwfm::python::make_interruption(time_limit);
  Options options{maximize, cost_limit};
  options.interruption = &interruption;
  if (warm_v) options.warm_v = warm_v->data();
  if (warm_columns) options.warm_columns = warm_columns->data();
  const Answers answers{columns.mutable_data(), totals.mutable_data(),
                        u ? u->mutable_data() : nullptr, v ? v->mutable_data() : nullptr,
                        bounds ? bounds->mutable_data() : nullptr};
  std::vector<Status> statuses(static_cast<std::size_t>(costs.shape(0)), Status::ok);
  const auto problems = lwfm::python::problems_of(costs);
  {
    const py::gil_scoped_release unlocked;
    share_problems(costs.shape(0), lwfm::python::piece_length(costs),
                   std::max(costs.shape(1), costs.shape(2)), threads, options,
                   [&](std::int64_t begin, std::int64_t end, const Options& own) {
                     problems->solve(begin, end, own, answers, statuses.data());
                   });
  }
  if (!lwfm::python::ended_in_time(interruption)) return false;
  const std::int64_t bad = lwfm::python::first_failure(statuses);
  if (bad < 0) return true;
  const Status status = statuses[static_cast<std::size_t>(bad)];
  throw std::invalid_argument(
      problems->describe(bad, status, maximize, name, lwfm::python::place_of(bad, single)));
}

// Solves matrices of different shapes and dtypes: costs[b] [N_b, M_b] into columns[b] [N_b] and
// totals [B], as solve does.
bool solve_ragged(const std::vector<py::array>& costs, bool maximize, double cost_limit,
                  std::int64_t threads, const std::string& name, std::vector<Indices> columns,
                  Numbers totals, std::optional<double> time_limit, std::optional<Numbers> bounds) {
  lwfm::Interruption interruption = lwfm::python::make_interruption(time_limit);
  Options options{maximize, cost_limit};
  options.interruption = &interruption;
  std::vector<std::unique_ptr<const Problems>> problems;
  std::vector<Answers> answers;
  for (std::size_t b = 0; b < costs.size(); ++b) {
    problems.push_back(lwfm::python::problems_of(costs[b]));
    answers.push_back({columns[b].mutable_data(), totals.mutable_data() + b, nullptr, nullptr,
                       bounds ? bounds->mutable_data() + b : nullptr});
  }
  std::vector<Status> statuses(costs.size(), Status::ok);
  std::int64_t longest_side = 0;
  for (const py::array& cost : costs) {
    longest_side = std::max<std::int64_t>({longest_side, cost.shape(0), cost.shape(1)});
  }
  {
    const py::gil_scoped_release unlocked;
    share_problems(static_cast<std::int64_t>(costs.size()), 1, longest_side, threads, options,
                   [&](std::int64_t begin, std::int64_t end, const Options& own) {
                     for (auto b = static_cast<std::size_t>(begin);
                          b < static_cast<std::size_t>(end); ++b) {
                       problems[b]->solve(0, 1, own, answers[b], &statuses[b]);
                     }
                   });
  }
  if (!lwfm::python::ended_in_time(interruption)) return false;
  const std::int64_t bad = lwfm::python::first_failure(statuses);
  if (bad < 0) return true;
  const auto b = static_cast<std::size_t>(bad);
  throw std::invalid_argument(problems[b]->describe(0, statuses[b], maximize, name, {bad}));
}

// Solves a matrix in compressed rows, rows <= columns: the column of each row, or nothing if there
// is no complete assignment; after the time limit, a lower bound on the total.
std::variant<Indices, double, std::monostate> solve_sparse(std::int64_t columns,
                                                           const Indices& start,
                                                           const Indices& column,
                                                           const Numbers& value,
                                                           std::optional<double> time_limit) {
  const lwfm::SparseCost cost{start.size() - 1, columns, start.data(), column.data(), value.data()};
  lwfm::Interruption interruption = lwfm::python::make_interruption(time_limit);
  Indices assignment(cost.rows);
  Status status = Status::ok;
  double bound = 0.0;
  {
    std::int64_t* columns_of_rows = assignment.mutable_data();
    const py::gil_scoped_release unlocked;
    lwfm::SparseSolver solver(cost, &interruption);
    status = solver.solve(columns_of_rows);
    if (status == Status::interrupted) bound = solver.bound();
  }
  if (!lwfm::python::ended_in_time(interruption)) return bound;
  if (status != Status::ok) return std::monostate{};
  return assignment;
}

}  // namespace

PYBIND11_MODULE(_lap, module) {
  lwfm::python::main_thread =
      py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  module.doc() =
      "The batched linear assignment solver behind lwfm.lap, and the episodes behind lwfm.lite.";
  module.def("solve", &solve, py::arg("costs"), py::arg("maximize"), py::arg("cost_limit"),
             py::arg("threads"), py::arg("name"), py::arg("single"), py::arg("columns").noconvert(),
             py::arg("totals").noconvert(), py::arg("u").noconvert(), py::arg("v").noconvert(),
             py::arg("warm_v").noconvert(), py::arg("warm_columns").noconvert(),
             py::arg("time_limit"), py::arg("bounds").noconvert());
  module.def("solve_ragged", &solve_ragged, py::arg("costs"), py::arg("maximize"),
             py::arg("cost_limit"), py::arg("threads"), py::arg("name"), py::arg("columns"),
             py::arg("totals").noconvert(), py::arg("time_limit"), py::arg("bounds").noconvert());
  module.def("solve_sparse", &solve_sparse, py::arg("columns"), py::arg("start"), py::arg("column"),
             py::arg("value"), py::arg("time_limit"));
  lwfm::python::add_ranking(module);
  lwfm::python::add_bottleneck(module);
  lwfm::python::add_episode(module);
  module.def("simd_level", [] { return lwfm::name_of(lwfm::simd_level()); });
}
