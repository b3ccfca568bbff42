// NumPy arrays as sequences of cost matrices, and their solution.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/assignment.h"
#include "core/assignment/error_message.h"

namespace lwfm::python {

namespace py = pybind11;

// Destination of the answers of a batch: assignments [B, N], totals [B], duals [B, N] and [B, M] or
// null.
struct Answers {
  std::int64_t* columns;
  double* totals;
  double* u;
  double* v;
  double* bounds;  // [B], written if not null; see Options
};

// A cost matrix of any dtype, in a batch of its like, `stride` elements apart.
class Problems {
 public:
  virtual ~Problems() = default;
  // Solves problems begin..end on the calling thread; never throws.
  virtual void solve(std::int64_t begin, std::int64_t end, const Options& options,
                     const Answers& answers, Status* statuses) const noexcept = 0;
  // The error message for problem b, whose place in the caller's batch is `index`.
  virtual std::string describe(std::int64_t b, Status status, bool maximize,
                               const std::string& name, std::vector<std::int64_t> index) const = 0;
};

// The cost matrices of an array [N, M] or [B, N, M].
template <class T>
class Matrices {
 public:
  explicit Matrices(const py::array& costs) {
    const auto rank = static_cast<int>(costs.ndim());
    const auto stride = [&](int axis) {
      const auto bytes = static_cast<py::ssize_t>(sizeof(T));
      if (costs.strides(axis) % bytes != 0) throw std::invalid_argument("costs are not aligned");
      return static_cast<std::int64_t>(costs.strides(axis) / bytes);
    };
    stride_ = rank == 3 ? stride(0) : 0;
    first_ = {static_cast<const T*>(costs.data()), costs.shape(rank - 2), costs.shape(rank - 1),
              stride(rank - 2), stride(rank - 1)};
  }

  CostMatrix<T> operator[](std::int64_t b) const {
    CostMatrix<T> cost = first_;
    cost.data += b * stride_;
    return cost;
  }

 private:
  CostMatrix<T> first_{};
  std::int64_t stride_ = 0;
};

template <class T>
class ProblemsOf final : public Problems {
 public:
  explicit ProblemsOf(const Matrices<T>& costs) : costs_(costs) {}

  void solve(std::int64_t begin, std::int64_t end, const Options& options, const Answers& answers,
             Status* statuses) const noexcept override {
    WorkspaceOfThread workspace;
    for (std::int64_t b = begin; b < end; ++b) {
      const CostMatrix<T> cost = costs_[b];
      std::int64_t* columns = answers.columns + b * cost.rows;
      Duals duals;
      if (answers.u != nullptr) duals = {answers.u + b * cost.rows, answers.v + b * cost.columns};
      Options own = options;
      if (own.warm_v != nullptr) own.warm_v += b * cost.columns;
      if (own.warm_columns != nullptr) own.warm_columns += b * cost.rows;
      if (answers.bounds != nullptr) own.bound = answers.bounds + b;
      statuses[b] = lwfm::solve(cost, own, *workspace, columns, duals);
      answers.totals[b] = total_cost(cost, columns);
      if (own.bound != nullptr && statuses[b] == Status::ok) {
        *own.bound = answers.totals[b] + price_of_unmatched(cost, options, columns);
      }
    }
  }

  std::string describe(std::int64_t b, Status status, bool maximize, const std::string& name,
                       std::vector<std::int64_t> index) const override {
    return describe_failure(status, costs_[b], maximize, name, std::move(index));
  }

 private:
  // What the rows and columns left unmatched add to the objective.
  static double price_of_unmatched(const CostMatrix<T>& cost, const Options& options,
                                   const std::int64_t* columns) {
    if (!options.limited()) return 0.0;
    const auto unmatched = std::count(columns, columns + cost.rows, std::int64_t{-1});
    return 0.5 * options.cost_limit * static_cast<double>(2 * unmatched + cost.columns - cost.rows);
  }

  Matrices<T> costs_;
};

// Calls `use` with the matrices of an array of any real dtype.
template <class Use>
auto with_matrices(const py::array& costs, const Use& use) {
  const char kind = costs.dtype().kind();
  const auto size = costs.itemsize();
  if (kind == 'f' && size == 4) return use(Matrices<float>(costs));
  if (kind == 'f' && size == 8) return use(Matrices<double>(costs));
  if (kind == 'i' && size == 1) return use(Matrices<std::int8_t>(costs));
  if (kind == 'i' && size == 2) return use(Matrices<std::int16_t>(costs));
  if (kind == 'i' && size == 4) return use(Matrices<std::int32_t>(costs));
  if (kind == 'i' && size == 8) return use(Matrices<std::int64_t>(costs));
  if ((kind == 'u' || kind == 'b') && size == 1) return use(Matrices<std::uint8_t>(costs));
  if (kind == 'u' && size == 2) return use(Matrices<std::uint16_t>(costs));
  if (kind == 'u' && size == 4) return use(Matrices<std::uint32_t>(costs));
  if (kind == 'u' && size == 8) return use(Matrices<std::uint64_t>(costs));
  throw py::type_error("costs must be real numbers of at most 64 bits");
}

template <class T>
std::unique_ptr<const Problems> make_problems(const Matrices<T>& costs) {
  return std::make_unique<ProblemsOf<T>>(costs);
}

// The problems of an array.
inline std::unique_ptr<const Problems> problems_of(const py::array& costs) {
  return with_matrices(costs, [](const auto& matrices) -> std::unique_ptr<const Problems> {
    return make_problems(matrices);
  });
}

// The index of the first problem that failed; -1 if none did. Throws where memory ran out.
inline std::int64_t first_failure(const std::vector<Status>& statuses) {
  const auto failed = [](Status status) { return status != Status::ok; };
  const auto bad = std::find_if(statuses.begin(), statuses.end(), failed);
  if (bad == statuses.end()) return -1;
  if (*bad == Status::out_of_memory) throw std::bad_alloc();
  return bad - statuses.begin();
}

}  // namespace lwfm::python
