// How a single transport problem ended.
#pragma once

#include <cstdint>

namespace lwfm {

enum class TransportStatus : std::int32_t {
  ok = 0,
  invalid_cost = 1,           // NaN or infinite
  invalid_row_weight = 2,     // negative, NaN or infinite
  invalid_column_weight = 3,  // the same
  unequal_sums = 4,           // of the weights
  out_of_memory = 5,          // the workspace could not be allocated
  interrupted = 6,            // the caller ended the call
};

}  // namespace lwfm
