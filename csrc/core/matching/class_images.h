// The support images of each class, as lists.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lwfm {

struct ClassImages {
  std::int64_t way;
  const std::int64_t* begin;   // [way + 1]: where the images of a class start in the list
  const std::int64_t* images;  // [S], sorted by class

  LWFM_HOST_DEVICE std::int64_t shots(std::int64_t c) const { return begin[c + 1] - begin[c]; }
};

}  // namespace lwfm
