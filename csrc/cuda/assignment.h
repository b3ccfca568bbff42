// Assignment problems on the device: what the torch operators call. No CUDA header is needed here.
#pragma once

#include <cstdint>

namespace lwfm {

// costs [count, rows, columns] of any strides (in elements), with positive sides; T is float or
// double. +inf forbids a pair (-inf when maximizing).
//
//   assignment [count, rows], written: the column of each row, -1 for a row without one
//   statuses   [count], written: a lwfm::Status each; where it is not ok, the assignment is all -1
//   workspace  of workspace_bytes(), 8-byte aligned; may be null if those are 0
template <class T>
struct AssignmentBatch {
  const T* costs;
  std::int64_t count, rows, columns;
  std::int64_t batch_stride, row_stride, column_stride;
  bool maximize;
  std::int64_t* assignment;
  std::int32_t* statuses;
  void* workspace;
};

// The longest side that a kernel takes: indices within a problem have 31 bits. Offsets have 64.
constexpr std::int64_t kLongestSide = (std::int64_t{1} << 30) - 1;

// Global memory that solving these problems needs; 0 where their state fits in shared memory.
std::int64_t assignment_workspace_bytes(std::int64_t count, std::int64_t rows,
                                        std::int64_t columns);

// Solves the problems on a stream (a cudaStream_t); neither allocates nor waits, so it can be
// captured in a CUDA graph. Returns a cudaError_t. The answers are those of
// core/assignment.h: up to 32 columns ties included, above wherever the best one is unique.
int solve_assignments(const AssignmentBatch<float>& batch, void* stream);
int solve_assignments(const AssignmentBatch<double>& batch, void* stream);

}  // namespace lwfm
