// The part of nvcuda::wmma that kernels use: products of 16 x 8 and 8 x 16 matrices in TF32, a
// matrix held by the lanes of a warp together. Which lane holds which entry is scattered: CUDA does
// not say.
#pragma once

#include "collectives.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

// Rounded to 10 bits after the leading one, ties away from zero.
inline float __float_to_tf32(float x) {
  if (!std::isfinite(x)) return x;
  return simt::from_bits<float>((simt::to_bits(x) + 0x1000u) & 0xffffe000u);
}

template <class Use, int m, int n, int k, class T, class Layout = void>
class fragment;

// NaN before anything is loaded.
template <int kEntries>
struct Entries {
  static constexpr int num_elements = kEntries / 32;
  float x[num_elements];

  Entries() {
    for (float& entry : x) entry = NAN;
  }
};

template <class Layout>
class fragment<matrix_a, 16, 16, 8, precision::tf32, Layout> : public Entries<128> {};
template <class Layout>
class fragment<matrix_b, 16, 16, 8, precision::tf32, Layout> : public Entries<128> {};
template <>
class fragment<accumulator, 16, 16, 8, float> : public Entries<256> {};

template <class Fragment>
void fill_fragment(Fragment& to, float value) {
  for (float& entry : to.x) entry = value;
}

// Where entry number `entry` of a matrix of `columns` columns is in memory.
template <class Layout>
unsigned offset_of(int entry, int columns, unsigned stride) {
  const auto row = static_cast<unsigned>(entry / columns),
             column = static_cast<unsigned>(entry % columns);
  return std::is_same_v<Layout, row_major> ? row * stride + column : column * stride + row;
}

template <class Layout>
void load_matrix_sync(fragment<matrix_a, 16, 16, 8, precision::tf32, Layout>& to, const float* from,
                      unsigned stride, SIMT_PLACE) {
  simt::meet_for_matrix(simt::Collective::load_matrix, from, stride, place);
  for (int n = 0; n < to.num_elements; ++n) {
    to.x[n] = from[offset_of<Layout>(simt::matrix_entry(simt::own_lane(), n), 8, stride)];
  }
}

template <class Layout>
void load_matrix_sync(fragment<matrix_b, 16, 16, 8, precision::tf32, Layout>& to, const float* from,
                      unsigned stride, SIMT_PLACE) {
  simt::meet_for_matrix(simt::Collective::load_matrix, from, stride, place);
  for (int n = 0; n < to.num_elements; ++n) {
    to.x[n] = from[offset_of<Layout>(simt::matrix_entry(simt::own_lane(), n), 16, stride)];
  }
}

inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 8, float>& from,
                              unsigned stride, layout_t layout, SIMT_PLACE) {
  simt::meet_for_matrix(simt::Collective::store_matrix, to, stride, place);
  for (int n = 0; n < from.num_elements; ++n) {
    const int entry = simt::matrix_entry(simt::own_lane(), n);
    to[layout == mem_row_major ? offset_of<row_major>(entry, 16, stride)
                               : offset_of<col_major>(entry, 16, stride)] = from.x[n];
  }
}

template <class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 8, float>& d,
              const fragment<matrix_a, 16, 16, 8, precision::tf32, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 8, precision::tf32, LayoutB>& b,
              const fragment<accumulator, 16, 16, 8, float>& c, SIMT_PLACE) {
  simt::multiply_fragments({a.x, b.x, c.x, d.x}, place);
}

}  // namespace nvcuda::wmma
