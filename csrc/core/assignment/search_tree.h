// The columns that a search for a shortest augmenting path has reached, in order of discovery.
#pragma once

#include <cstdint>
#include <utility>

#include "core/assignment/limits.h"
#include "core/assignment/workspace.h"

namespace lwfm {

class SearchTree {
 public:
  explicit SearchTree(Workspace& workspace) : workspace_(workspace) {}

  std::int64_t size() const { return size_; }
  void clear() { size_ = 0; }

  std::int64_t column(std::int64_t k) const { return workspace_.scanned[k]; }
  double dual(std::int64_t k) const { return workspace_.scanned_v[k]; }
  double distance(std::int64_t k) const { return workspace_.scanned_distance[k]; }

  void add(std::int64_t column, double dual, double distance) {
    workspace_.scanned[size_] = column;
    workspace_.scanned_v[size_] = dual;
    workspace_.scanned_distance[size_] = distance;
    ++size_;
  }

  // A column in the tree is out of the search: its distance is infinite, and stays so.
  void hide(std::int64_t column) {
    workspace_.distance[column] = kInfinity;
    workspace_.v[column] = -kInfinity;
  }

  // Of the columns first..last - 1: the dual with which every assigned pair is tight again after
  // a path of length `reached` was found; or the dual before the search.
  void move_duals(double reached, std::int64_t first, std::int64_t last) {
    for (std::int64_t k = 0; k < size_; ++k) {
      if (first <= column(k) && column(k) < last) {
        workspace_.v[column(k)] = dual(k) + (distance(k) - reached);
      }
    }
  }
  void restore_duals(std::int64_t first, std::int64_t last) {
    for (std::int64_t k = 0; k < size_; ++k) {
      if (first <= column(k) && column(k) < last) workspace_.v[column(k)] = dual(k);
    }
  }

  // Assigns along the path that ends in the free column `sink`; predecessor(column) is the row
  // before it.
  template <class Predecessor>
  void flip(std::int64_t start, std::int64_t sink, const Predecessor& predecessor) {
    std::int64_t column = sink;
    for (std::int64_t row = -1; row != start;) {
      row = static_cast<std::int64_t>(predecessor(column));
      workspace_.column_to_row[column] = row;
      std::swap(column, workspace_.row_to_column[row]);
    }
  }

 private:
  Workspace& workspace_;
  std::int64_t size_ = 0;
};

}  // namespace lwfm
