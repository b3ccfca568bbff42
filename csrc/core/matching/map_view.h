// The map of one image and one layer in the caller's memory; strides count elements.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lwfm {

template <class T>
struct MapView {
  T* data;
  std::int64_t channels, height, width;
  std::int64_t channel_stride, row_stride, column_stride;

  LWFM_HOST_DEVICE std::int64_t positions() const { return height * width; }
  LWFM_HOST_DEVICE T* position(std::int64_t p) const {
    return data + p / width * row_stride + p % width * column_stride;
  }
};

}  // namespace lwfm
