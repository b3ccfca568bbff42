// Every warp collective and block barrier against a model written from CUDA's documentation.
#include <array>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "cpp/check.h"
#include "cuda/portable.h"
#include "schedules.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;
std::mt19937 engine(7);

constexpr std::size_t kThreads = 64;
constexpr int kForms = 4, kOperands = 32;

// out [operands, forms, threads]
template <class T>
__global__ void shuffle_all(const T* in, T* out, int width) {
  const T value = in[threadIdx.x];
  for (int operand = 0; operand < kOperands; ++operand) {
    T* const to = out + operand * kForms * static_cast<int>(kThreads) + threadIdx.x;
    to[0 * kThreads] = __shfl_sync(kFull, value, operand, width);
    to[1 * kThreads] = __shfl_up_sync(kFull, value, static_cast<unsigned>(operand), width);
    to[2 * kThreads] = __shfl_down_sync(kFull, value, static_cast<unsigned>(operand), width);
    to[3 * kThreads] = __shfl_xor_sync(kFull, value, operand, width);
  }
}

// The lane whose value `lane` receives. Lanes read within their segment; xor also from earlier
// ones.
int source_of(int form, int lane, int operand, int width) {
  const int segment = lane / width, within = lane % width;
  if (form == 0) return segment * width + operand % width;
  if (form == 3) return (lane ^ operand) / width > segment ? lane : lane ^ operand;
  const int wanted = form == 1 ? within - operand : within + operand;
  return wanted < 0 || wanted >= width ? lane : segment * width + wanted;
}

template <class T>
void shuffles() {
  std::vector<T> in(kThreads), out(kOperands * kForms * kThreads);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<T>(1000 * i + 7);
  for (int width = 2; width <= 32; width *= 2) {
    LWFM_LAUNCH(shuffle_all<T>, 1, kThreads, 0, nullptr, in.data(), out.data(), width);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto thread = static_cast<int>(i % kThreads), row = static_cast<int>(i / kThreads);
      const int source = source_of(row % kForms, thread % 32, row / kForms, width);
      CHECK(out[i] == in[static_cast<std::size_t>(thread / 32 * 32 + source)]);
    }
  }
}

struct Votes {
  unsigned ballot, match, add, low, high, conjunction, disjunction, parity;
  int any, all, sum, lowest, highest;
};

// Lanes of `mask` and the others vote apart, as diverged branches do.
__global__ void vote_all(const unsigned* in, unsigned mask, Votes* out) {
  const unsigned lane = threadIdx.x, value = in[lane];
  const unsigned own = (mask >> lane & 1) != 0 ? mask : ~mask;
  const int number = static_cast<int>(value), odd = number & 1;
  Votes votes;
  votes.ballot = __ballot_sync(own, odd);
  votes.any = __any_sync(own, odd);
  votes.all = __all_sync(own, odd);
  votes.match = __match_any_sync(own, value);
  votes.add = __reduce_add_sync(own, value);
  votes.low = __reduce_min_sync(own, value);
  votes.high = __reduce_max_sync(own, value);
  votes.sum = __reduce_add_sync(own, number);
  votes.lowest = __reduce_min_sync(own, number);
  votes.highest = __reduce_max_sync(own, number);
  votes.conjunction = __reduce_and_sync(own, value);
  votes.disjunction = __reduce_or_sync(own, value);
  votes.parity = __reduce_xor_sync(own, value);
  out[lane] = votes;
}

Votes model(const std::vector<unsigned>& in, unsigned own, unsigned value) {
  std::vector<unsigned> voters;
  Votes votes{};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((own >> lane & 1) == 0) continue;
    voters.push_back(in[lane]);
    votes.ballot |= (in[lane] & 1) << lane;
    votes.match |= (in[lane] == value ? 1u : 0u) << lane;
  }
  votes.any = votes.ballot != 0;
  votes.all = votes.ballot == own;
  const std::set<unsigned> sorted(voters.begin(), voters.end());
  std::set<int> numbers;
  votes.conjunction = kFull;
  for (const unsigned x : voters) {
    numbers.insert(static_cast<int>(x));
    votes.add += x;
    votes.conjunction &= x;
    votes.disjunction |= x;
    votes.parity ^= x;
  }
  votes.low = *sorted.begin();
  votes.high = *sorted.rbegin();
  votes.sum = static_cast<int>(votes.add);
  votes.lowest = *numbers.begin();
  votes.highest = *numbers.rbegin();
  return votes;
}

bool equal(const Votes& a, const Votes& b) {
  const auto list = [](const Votes& v) {
    return std::array<std::int64_t, 13>{v.ballot,      v.match,       v.add,    v.low, v.high,
                                        v.conjunction, v.disjunction, v.parity, v.any, v.all,
                                        v.sum,         v.lowest,      v.highest};
  };
  return list(a) == list(b);
}

void votes_and_reductions() {
  for (int round = 0; round < 30; ++round) {
    const unsigned mask = round == 0 ? kFull : round == 1 ? 0x80000000u : engine();
    const int shift = round % 3 == 0 ? 30 : 0;  // few distinct values, for matches
    std::vector<unsigned> in(32);
    for (unsigned& x : in)
      x = static_cast<unsigned>(engine()) >> shift | (round % 5 == 0 ? 1u : 0u);
    std::vector<Votes> out(32);
    LWFM_LAUNCH(vote_all, 1, 32, 0, nullptr, in.data(), mask, out.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned own = (mask >> lane & 1) != 0 ? mask : ~mask;
      CHECK(equal(out[lane], model(in, own, in[lane])));
    }
  }
}

// Halves of a warp loop differently often, and shared memory passes between lanes.
__global__ void diverge(const int* in, int* out) {
  LWFM_SHARED(int, passed, 64);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, half = lane / 16;
  const unsigned mask = half == 0 ? 0x0000ffffu : 0xffff0000u;
  int value = in[thread];
  for (int trip = 0; trip < (half == 0 ? 3 : 9); ++trip) {
    value += __shfl_xor_sync(mask, value, 1 << trip % 4, 16);
    passed[thread] = value;
    __syncwarp(mask);
    value += passed[thread / 16 * 16 + (lane + 1) % 16];
    __syncwarp(mask);
  }
  out[thread] = value;
}

void halves_of_a_warp() {
  std::vector<int> in(64), out(64);
  for (int& x : in) x = static_cast<int>(engine() % 100);
  LWFM_LAUNCH(diverge, 1, 64, 0, nullptr, in.data(), out.data());
  for (std::size_t first = 0; first < 64; first += 16) {
    std::vector<int> value(in.begin() + static_cast<long>(first),
                           in.begin() + static_cast<long>(first) + 16);
    for (int trip = 0; trip < (first / 16 % 2 == 0 ? 3 : 9); ++trip) {
      const std::vector<int> before = value;
      for (std::size_t i = 0; i < 16; ++i) value[i] += before[i ^ (1u << trip % 4)];
      const std::vector<int> written = value;
      for (std::size_t i = 0; i < 16; ++i) value[i] += written[(i + 1) % 16];
    }
    CHECK(std::equal(value.begin(), value.end(), out.begin() + static_cast<long>(first)));
  }
}

__global__ void count_in_block(const int* in, int* out) {
  const int value = in[threadIdx.x];
  const int counted = __syncthreads_count(value & 1);
  const int any = __syncthreads_or(value == 99);
  const int all = __syncthreads_and(value < 100);
  out[threadIdx.x] = counted * 4 + any * 2 + all;
}

void barriers_that_count() {
  for (int round = 0; round < 8; ++round) {
    const auto threads = static_cast<unsigned>(1 + engine() % 100);
    std::vector<int> in(threads), out(threads);
    int odd = 0, any = 0, all = 1;
    for (int& x : in) {
      x = static_cast<int>(engine() % 102);
      odd += x & 1;
      any |= x == 99;
      all &= x < 100;
    }
    LWFM_LAUNCH(count_in_block, 1, threads, 0, nullptr, in.data(), out.data());
    for (const int x : out) CHECK(x == odd * 4 + any * 2 + all);
  }
}

namespace wmma = nvcuda::wmma;

// d = a b + c of two warps, with b column by column.
__global__ void multiply(const float* a, const float* b, float* d) {
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> own_a;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major> own_b;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sums;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  wmma::load_matrix_sync(own_a, a + warp * 16 * 8, 8);
  wmma::load_matrix_sync(own_b, b + warp * 8 * 16, 8);
  wmma::fill_fragment(sums, static_cast<float>(1 + warp));
  for (int n = 0; n < own_a.num_elements; ++n) own_a.x[n] = wmma::__float_to_tf32(own_a.x[n]);
  for (int n = 0; n < own_b.num_elements; ++n) own_b.x[n] = wmma::__float_to_tf32(own_b.x[n]);
  wmma::mma_sync(sums, own_a, own_b, sums);
  wmma::store_matrix_sync(d + warp * 16 * 20, sums, 20, wmma::mem_row_major);
}

// 10 bits after the leading one, ties away from zero.
float in_tf32(float x) {
  int exponent;
  const double leading = std::frexp(static_cast<double>(x), &exponent);
  return static_cast<float>(std::ldexp(std::round(std::ldexp(leading, 11)), exponent - 11));
}

void matrices() {
  struct alignas(32) Numbers {
    std::array<float, 2 * 16 * 20> of;
  } a, b, d;
  std::normal_distribution<float> normal;
  for (float& x : a.of) x = normal(engine);
  for (float& x : b.of) x = normal(engine);
  a.of[0] = 1.0f + 0x1p-11f;  // a tie
  LWFM_LAUNCH(multiply, 1, 64, 0, nullptr, a.of.data(), b.of.data(), d.of.data());
  for (std::size_t n = 0; n < 2 * 256; ++n) {
    const std::size_t warp = n / 256, i = n % 256 / 16, j = n % 16;
    double sum = 1.0 + static_cast<double>(warp), size = sum;
    for (std::size_t k = 0; k < 8; ++k) {
      const double product = static_cast<double>(in_tf32(a.of[warp * 128 + i * 8 + k])) *
                             static_cast<double>(in_tf32(b.of[warp * 128 + j * 8 + k]));
      sum += product;
      size += std::fabs(product);
    }
    const auto actual = static_cast<double>(d.of[warp * 320 + i * 20 + j]);
    CHECK(std::fabs(actual) <= std::fabs(sum) * (1 + 1e-12));
    CHECK(std::fabs(actual - sum) < 0x1p-22 * size);
  }
}

}  // namespace

int main() {
  simt::for_each_schedule([] {
    shuffles<int>();
    shuffles<double>();
    votes_and_reductions();
    halves_of_a_warp();
    barriers_that_count();
    matrices();
  });
  return check::result();
}
