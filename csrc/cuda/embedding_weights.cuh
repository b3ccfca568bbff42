// Layer-wise embedding on the block of every pair, forward and backward: what
// core/matching/embedding_weights.h computes, with a group of threads for each pair.
//
// A line is a row of the block or a column; rows come first. One thread works on one line, alone
// and in order, so the result is the same for every group, block and grid.
#pragma once

#include "core/matching/softmax_line.h"
#include "pair_blocks.cuh"

namespace lwfm {

// Numbers in shared memory for one pair, forward and backward; in fours, for vectors of the next.
LWFM_HOST_DEVICE constexpr int weights_scratch(int rows, int columns, bool staged) {
  const int numbers = 4 * (rows + columns) + pair_scratch(rows, columns, staged);
  return (numbers + 3) / 4 * 4;
}

LWFM_HOST_DEVICE constexpr int weights_gradient_scratch(int rows, int columns, bool staged) {
  const int numbers = 7 * (rows + columns) + pair_scratch(rows, columns, staged);
  return (numbers + 3) / 4 * 4;
}

static_assert(sizeof(double) * weights_gradient_scratch(kMaxPairPositions, 0, false) <=
              kSharedBytes);

// The softmax of every line of a pair.
template <class Group, class T, bool kStaged>
__device__ void find_lines(const PairView<T, kStaged>& pair, T temperature, SoftmaxLine<T>* lines) {
  for (int line = Group::rank(); line < pair.lines(); line += Group::size()) {
    const LineView<T, kStaged> entries(pair, line);
    lines[line] = softmax_line(entries, entries.count, temperature);
  }
}

// The weight of a position: the sum of its entries' weights in the lines that cross its own.
template <class T, bool kStaged>
__device__ T weight_of(const PairView<T, kStaged>& pair, int line, const SoftmaxLine<T>* lines) {
  const LineView<T, kStaged> entries(pair, line);
  T sum{0};
  for (int k = 0; k < entries.count; ++k) sum += lines[entries.crossing + k].weight(entries(k));
  return sum;
}

// Writes a and b of one pair.
template <class Group, class T, bool kStaged>
__device__ void write_weights(const PairView<T, kStaged>& pair, const SoftmaxLine<T>* lines, T* a,
                              T* b) {
  for (int line = Group::rank(); line < pair.lines(); line += Group::size()) {
    const T weight = weight_of(pair, line, lines);
    (line < pair.rows ? a[line] : b[line - pair.rows]) = weight;
  }
}

template <class T, bool kOfWarp, bool kStaged>
__global__ void __launch_bounds__(kPairThreads, 1) weigh(EmbeddingWeightsArguments<T> arguments) {
  using Group = PairGroup<kOfWarp>;
  LWFM_DYNAMIC_SHARED(T, memory);
  const PairShape& shape = arguments.shape;
  const int P = shape.rows, M = shape.columns;
  T* const scratch = memory + Group::in_block() * weights_scratch(P, M, kStaged);
  auto* const lines = reinterpret_cast<SoftmaxLine<T>*>(scratch);
  T* const staged = scratch + 4 * (P + M);
  for (std::int64_t p = Group::first(); p < shape.batch.count; p += Group::step()) {
    const auto pair = stage<Group, T, kStaged>(arguments.blocks, shape, p, staged);
    LWFM_SYNC(Group);
    find_lines<Group>(pair, arguments.temperature, lines);
    LWFM_SYNC(Group);
    write_weights<Group>(pair, lines, arguments.a + p * P, arguments.b + p * M);
    LWFM_SYNC(Group);  // before the next pair takes the memory
  }
}

// The memory of one pair in the backward kernel.
template <class T>
struct WeightsGradientScratch {
  SoftmaxLine<T>* lines;       // [P + M]
  LineGradient<T>* gradients;  // [P + M], of the lines
  T* weights;                  // [P + M], the gradients of a and then of b
  T* pair;

  __device__ WeightsGradientScratch(T* memory, int rows, int columns)
      : lines(reinterpret_cast<SoftmaxLine<T>*>(memory)),
        gradients(reinterpret_cast<LineGradient<T>*>(memory + 4 * (rows + columns))),
        weights(memory + 6 * (rows + columns)),
        pair(memory + 7 * (rows + columns)) {}
};

// What each line passes to its entries, from the gradients of the weights that cross it.
template <class Group, class T, bool kStaged>
__device__ void find_line_gradients(const PairView<T, kStaged>& pair, T temperature,
                                    const WeightsGradientScratch<T>& scratch) {
  for (int line = Group::rank(); line < pair.lines(); line += Group::size()) {
    const LineView<T, kStaged> entries(pair, line);
    const T* weights = scratch.weights + entries.crossing;
    scratch.gradients[line] = line_gradient(
        scratch.lines[line], entries, [weights](int k) { return weights[k]; }, entries.count,
        temperature);
  }
}

// Gathers the gradients of a line's entries: returns that of the line's scale and, for a column,
// calls write(i, gradient) with those of the raw entries.
template <class T, bool kStaged, class Write>
__device__ T gather_line(const PairView<T, kStaged>& pair, int line,
                         const WeightsGradientScratch<T>& scratch, const Write& write) {
  const LineView<T, kStaged> entries(pair, line);
  const bool is_column = line >= pair.rows;
  T sum{0};
  for (int k = 0; k < entries.count; ++k) {
    const int other = entries.crossing + k;
    const T x = entries(k);
    const T gradient =
        entry_gradient(scratch.lines[line], scratch.gradients[line], x, scratch.weights[other]) +
        entry_gradient(scratch.lines[other], scratch.gradients[other], x, scratch.weights[line]);
    sum += gradient * entries.raw_at(k) * entries.crossing_scale[k];
    if (is_column) write(k, gradient * entries.scale * entries.crossing_scale[k]);
  }
  return sum;
}

template <class T, bool kOfWarp, bool kStaged>
__global__ void __launch_bounds__(kPairThreads, 1)
    weigh_backward(EmbeddingWeightsGradientArguments<T> arguments) {
  using Group = PairGroup<kOfWarp>;
  LWFM_DYNAMIC_SHARED(T, memory);
  const PairShape& shape = arguments.shape;
  const int P = shape.rows, M = shape.columns;
  const WeightsGradientScratch<T> scratch(
      memory + Group::in_block() * weights_gradient_scratch(P, M, kStaged), P, M);
  const PairGradients<T>& to = arguments.to;
  for (std::int64_t p = Group::first(); p < shape.batch.count; p += Group::step()) {
    const auto pair = stage<Group, T, kStaged>(arguments.blocks, shape, p, scratch.pair);
    stage<Group, T>(arguments.grad_a, shape.batch, p, P, scratch.weights);
    stage<Group, T>(arguments.grad_b, shape.batch, p, M, scratch.weights + P);
    LWFM_SYNC(Group);
    find_lines<Group>(pair, arguments.temperature, scratch.lines);
    LWFM_SYNC(Group);
    find_line_gradients<Group>(pair, arguments.temperature, scratch);
    LWFM_SYNC(Group);
    const std::int64_t offset = offset_of(shape.batch, to.raw.batch, p);
    for (int line = Group::rank(); line < P + M; line += Group::size()) {
      T* const column = to.raw.data + offset + (line - P) * to.raw.column_stride;
      const T sum = gather_line(pair, line, scratch, [&](int i, T gradient) {
        column[i * to.raw.row_stride] = gradient;
      });
      (line < P ? to.row_scale[p * P + line] : to.column_scale[p * M + (line - P)]) = sum;
    }
    LWFM_SYNC(Group);  // before the next pair takes the memory
  }
}

}  // namespace lwfm
