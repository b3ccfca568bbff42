// Bindings of the ranking of assignments.
#include "core/ranking.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "calls.h"
#include "core/thread_pool.h"
#include "problems.h"

namespace lwfm::python {
namespace {

// The best assignments of each problem as arrays [B, K, N] and [B, K], where K is the largest
// number found: where there are fewer, -1 and the worst total there is.
py::tuple as_arrays(const std::vector<Best>& found, std::int64_t rows, bool maximize) {
  std::size_t most = 0;
  for (const Best& best : found) most = std::max(most, best.totals.size());
  const auto count = static_cast<py::ssize_t>(found.size());
  Indices columns({count, static_cast<py::ssize_t>(most), static_cast<py::ssize_t>(rows)});
  Numbers totals({count, static_cast<py::ssize_t>(most)});
  std::fill_n(columns.mutable_data(), columns.size(), std::int64_t{-1});
  std::fill_n(totals.mutable_data(), totals.size(), maximize ? -kInfinity : kInfinity);
  for (std::size_t b = 0; b < found.size(); ++b) {
    const Best& best = found[b];
    std::copy(best.columns.begin(), best.columns.end(),
              columns.mutable_data() + b * most * static_cast<std::size_t>(rows));
    std::copy(best.totals.begin(), best.totals.end(), totals.mutable_data() + b * most);
  }
  return py::make_tuple(columns, totals);
}

// The k best assignments of each problem of costs [B, N, M]: columns [B, K, N] and totals [B, K],
// or nothing if the time was up; then bounds [B] hold what is known about the others.
std::optional<py::tuple> k_best(const py::array& costs, std::int64_t k, bool maximize,
                                std::int64_t threads, const std::string& name, bool single,
                                std::optional<double> time_limit, Numbers bounds) {
  Interruption interruption = make_interruption(time_limit);
  const std::int64_t count = costs.shape(0);
  const double unknown = maximize ? kInfinity : -kInfinity;
  std::vector<Best> found(static_cast<std::size_t>(count), Best{{}, {}, unknown});
  std::vector<Status> statuses(found.size(), Status::interrupted);
  return with_matrices(costs, [&](const auto& matrices) -> std::optional<py::tuple> {
    {
      const py::gil_scoped_release unlocked;
      const auto work = [&](std::int64_t begin, std::int64_t end) {
        WorkspaceOfThread workspace;
        for (std::int64_t b = begin; b < end; ++b) {
          const auto place = static_cast<std::size_t>(b);
          statuses[place] =
              find_best(matrices[b], k, maximize, &interruption, *workspace, found[place]);
        }
      };
      const std::int64_t piece =
          std::max<std::int64_t>(1, piece_length(costs) / std::max<std::int64_t>(1, k));
      share_work(count, piece, threads, work, &interruption);
    }
    if (!ended_in_time(interruption)) {
      for (std::size_t b = 0; b < found.size(); ++b) {
        if (statuses[b] == Status::ok) bounds.mutable_data()[b] = found[b].totals.back();
        if (statuses[b] == Status::interrupted) bounds.mutable_data()[b] = found[b].bound;
      }
      return std::nullopt;
    }
    check_statuses(statuses, matrices, maximize, name, single);
    return as_arrays(found, costs.shape(1), maximize);
  });
}

// The assignments of one matrix, one after another.
class Ranker {
 public:
  enum Outcome { found = 0, no_more = 1, time_is_up = 2 };

  Ranker() = default;
  Ranker(const Ranker&) = delete;
  Ranker& operator=(const Ranker&) = delete;
  virtual ~Ranker() = default;
  // Finds the next assignment, columns [N]; only one thread at a time may.
  virtual int next(Indices columns, std::optional<double> time_limit) = 0;
  virtual double total(const Indices& columns) const = 0;
  virtual double bound() const = 0;
};

template <class T>
class RankerOf final : public Ranker {
 public:
  RankerOf(py::array costs, const Matrices<T>& matrices, bool maximize, std::string name)
      : costs_(std::move(costs)), cost_(matrices[0]), maximize_(maximize), name_(std::move(name)) {}

  int next(Indices columns, std::optional<double> time_limit) override {
    Interruption interruption = make_interruption(time_limit);
    Status status = Status::interrupted;
    {
      std::int64_t* to = columns.mutable_data();
      const py::gil_scoped_release unlocked;
      status = step(to, interruption);
    }
    if (!ended_in_time(interruption)) return time_is_up;
    if (status == Status::infeasible && begun_) return no_more;
    if (status == Status::out_of_memory) throw std::bad_alloc();
    if (status != Status::ok) {
      throw std::invalid_argument(describe_failure(status, cost_, maximize_, name_, {}));
    }
    begun_ = true;
    return found;
  }

  double total(const Indices& columns) const override {
    return static_cast<double>(exact_total(cost_, columns.data()));
  }

  double bound() const override {
    if (ranking_ != nullptr) return ranking_->bound();
    return maximize_ ? kInfinity : -kInfinity;
  }

 private:
  Status step(std::int64_t* columns, Interruption& interruption) {
    try {
      if (ranking_ == nullptr) {
        workspace_.watch.begin(&interruption);
        ranking_ = rank(cost_, maximize_, workspace_);
      }
    } catch (const Interrupted&) {
      return Status::interrupted;
    } catch (const std::bad_alloc&) {
      return Status::out_of_memory;
    }
    return ranking_->next(columns, &interruption);
  }

  py::array costs_;  // keeps the memory of cost_
  CostMatrix<T> cost_;
  bool maximize_;
  std::string name_;
  bool begun_ = false;
  Workspace workspace_;
  std::unique_ptr<Ranking> ranking_;
};

template <class T>
std::unique_ptr<Ranker> make_ranker(const py::array& costs, const Matrices<T>& matrices,
                                    bool maximize, const std::string& name) {
  return std::make_unique<RankerOf<T>>(costs, matrices, maximize, name);
}

}  // namespace

void add_ranking(py::module_& module) {
  module.def("k_best", &k_best, py::arg("costs"), py::arg("k"), py::arg("maximize"),
             py::arg("threads"), py::arg("name"), py::arg("single"), py::arg("time_limit"),
             py::arg("bounds").noconvert());
  module.attr("NO_MORE") = static_cast<int>(Ranker::no_more);
  module.attr("TIME_IS_UP") = static_cast<int>(Ranker::time_is_up);
  py::class_<Ranker> ranker(module, "Ranker");
  ranker.def(py::init([](const py::array& costs, bool maximize, const std::string& name) {
               return with_matrices(costs, [&](const auto& matrices) {
                 return make_ranker(costs, matrices, maximize, name);
               });
             }),
             py::arg("costs"), py::arg("maximize"), py::arg("name"));
  ranker.def("next", &Ranker::next, py::arg("columns").noconvert(), py::arg("time_limit"));
  ranker.def("total", &Ranker::total, py::arg("columns").noconvert());
  ranker.def("bound", &Ranker::bound);
}

}  // namespace lwfm::python
