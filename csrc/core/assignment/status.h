// How a single assignment problem ended. Workers never throw across threads: they leave one status
// per problem and the caller looks at them afterwards.
#pragma once

#include <cstdint>

namespace lwfm {

enum class Status : std::int32_t {
  ok = 0,
  invalid_entry = 1,  // the cost has a NaN, or an infinity on the attractive side
  infeasible = 2,     // forbidden pairs leave no complete assignment
  out_of_memory = 3,  // the workspace could not be allocated
  interrupted = 4,    // the caller ended the call
};

}  // namespace lwfm
