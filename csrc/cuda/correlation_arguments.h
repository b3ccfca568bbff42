// What the fused operator on all (query, support) pairs of one layer hands to its kernel. Plain
// C++.
#pragma once

#include <cstdint>

namespace lwfm {

// [count, positions, channels] of any strides.
template <class In>
struct Images {
  const In* data;
  std::int64_t count;
  int positions;
  int channels;
  std::int64_t image_stride;
  std::int64_t position_stride;
  std::int64_t channel_stride;
};

// In: the type of the features. T: that of sums and results, float or double.
template <class In, class T>
struct CorrelationArguments {
  Images<In> support;
  Images<In> query;
  // Features that matched positions are compared by; data is null if they are support and query.
  Images<In> support_compared;
  Images<In> query_compared;
  T temperature;
  int top_k;                 // 0: no matching
  T* a;                      // [Q, S, P]
  T* b;                      // [Q, S, M]
  T* similarity;             // [Q, S], not written without matching
  std::int64_t* assignment;  // [Q, S, P], not written without matching
};

}  // namespace lwfm
