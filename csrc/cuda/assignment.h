// Assignment problems on the device: what the torch operators call. No CUDA header is needed here.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lwfm {

// costs [count, rows, columns] of any strides (in elements), with positive sides; T is float or
// double. +inf forbids a pair (-inf when maximizing).
//
//   cost_limit as lwfm::Options::cost_limit
//   assignment [count, rows], written: the column of each row, -1 for a row without one
//   u, v       [count, rows], [count, columns], written unless both are null: duals (lwfm::Duals)
//   statuses   [count], written: lwfm::Status; if not ok, the assignment is -1 and duals are NaN
//   workspace  of workspace_bytes(), 8-byte aligned; may be null if those are 0
template <class T>
struct AssignmentBatch {
  const T* costs;
  std::int64_t count, rows, columns;
  std::int64_t batch_stride, row_stride, column_stride;
  bool maximize;
  double cost_limit;
  std::int64_t* assignment;
  double *u, *v;
  std::int32_t* statuses;
  void* workspace;
};

// The columns that a kernel works on: those of the longer side and, with a cost limit, one for each
// row of the shorter side that may stay unmatched.
inline std::int64_t solver_columns(std::int64_t rows, std::int64_t columns, bool limited) {
  return limited ? rows + columns : std::max(rows, columns);
}

// The most columns that a kernel works on: indices within a problem have 31 bits. Offsets have 64.
constexpr std::int64_t kLongestSide = (std::int64_t{1} << 30) - 1;

// Global memory that solving these problems needs; 0 where their state fits in shared memory.
std::int64_t assignment_workspace_bytes(std::int64_t count, std::int64_t rows, std::int64_t columns,
                                        bool limited);

// Solves the problems on a stream (a cudaStream_t); neither allocates nor waits, so it can be
// captured in a CUDA graph. Returns a cudaError_t. The answers are those of
// core/assignment.h: up to 32 columns ties included, above wherever the best one is unique.
int solve_assignments(const AssignmentBatch<float>& batch, void* stream);
int solve_assignments(const AssignmentBatch<double>& batch, void* stream);

}  // namespace lwfm
