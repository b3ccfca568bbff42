// Which of two matched positions counts as the more similar one.
#pragma once

#include "core/host_device.h"

namespace lwfm {

// A NaN comes before any number, then the larger cosine, then the upper row: a total order.
template <class T, class Row>
LWFM_HOST_DEVICE bool comes_first(T cosine, Row row, T other_cosine, Row other_row) {
  const bool nan = cosine != cosine, other_nan = other_cosine != other_cosine;
  if (nan || other_nan) return nan && (!other_nan || row < other_row);
  return cosine > other_cosine || (cosine == other_cosine && row < other_row);
}

// Whether a matched similarity takes the place of the largest so far: the first of the largest
// counts, and a NaN as largest.
template <class T>
LWFM_HOST_DEVICE bool is_larger(T similarity, T best) {
  // Without a branch: which one is larger is hard to predict.
  return static_cast<int>(best == best) & static_cast<int>(!(similarity <= best));
}

}  // namespace lwfm
