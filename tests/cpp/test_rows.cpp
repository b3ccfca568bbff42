// Products of rows and sums of weighted rows: right, and bit for bit the same with vectors of
// either size.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/matching/positions.h"
#include "core/simd/row_products.h"
#include "core/simd/rows.h"

namespace {

using lwfm::kNarrow;
using lwfm::kWide;

template <class T>
std::vector<T> normal_numbers(std::int64_t count, std::mt19937_64& engine) {
  std::normal_distribution<double> normal;
  std::vector<T> numbers(static_cast<std::size_t>(count));
  for (T& x : numbers) x = static_cast<T>(normal(engine));
  return numbers;
}

template <class T>
bool is_close(T actual, double expected, double size) {
  return std::abs(actual - expected) <= (sizeof(T) == 4 ? 1e-5 : 1e-13) * (1 + size);
}

template <class T>
void inner_products_agree(std::int64_t count, std::mt19937_64& engine) {
  const std::vector<T> x = normal_numbers<T>(count, engine), y = normal_numbers<T>(count, engine);
  double expected = 0;
  for (std::size_t k = 0; k < x.size(); ++k) expected += double{x[k]} * y[k];
  const T wide = lwfm::inner_product<kWide>(x.data(), y.data(), count);
  CHECK(wide == lwfm::inner_product<kNarrow>(x.data(), y.data(), count));
  CHECK(is_close(wide, expected, std::sqrt(static_cast<double>(count))));
  CHECK((lwfm::sum_of<kWide>(x.data(), count) == lwfm::sum_of<kNarrow>(x.data(), count)));
}

// Weighted sums of `rows` rows for `outputs` sets of weights, and products of the rows with them.
template <class T, int kBytes>
std::vector<T> rows_times(std::int64_t rows, std::int64_t outputs, std::int64_t length,
                          const std::vector<T>& row, const std::vector<T>& weights) {
  std::vector<T> sums(static_cast<std::size_t>(outputs * length), T{1});
  std::vector<T> products(static_cast<std::size_t>(outputs * rows));
  const auto at = [&](std::int64_t r) LWFM_INLINE_LAMBDA { return row.data() + r * length; };
  lwfm::add_weighted_rows<kBytes, T>(at, rows, {weights.data(), outputs, rows}, length,
                                     {sums.data(), outputs, length});
  lwfm::products_with_rows<kBytes, T>(at, rows, {sums.data(), outputs, length}, length,
                                      {products.data(), outputs, rows});
  sums.insert(sums.end(), products.begin(), products.end());
  return sums;
}

template <class T>
void row_products_agree(std::int64_t rows, std::int64_t outputs, std::int64_t length,
                        std::mt19937_64& engine) {
  const auto row = normal_numbers<T>(rows * length, engine);
  const auto weights = normal_numbers<T>(outputs * rows, engine);
  const auto wide = rows_times<T, kWide>(rows, outputs, length, row, weights);
  CHECK((wide == rows_times<T, kNarrow>(rows, outputs, length, row, weights)));
  const double size = std::sqrt(static_cast<double>(rows * length)) * static_cast<double>(rows);
  for (std::int64_t n = 0; n < outputs; ++n) {
    std::vector<double> sum(static_cast<std::size_t>(length), 1.0);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t k = 0; k < length; ++k) {
        sum[k] += double{weights[n * rows + r]} * row[r * length + k];
      }
    }
    for (std::int64_t k = 0; k < length; ++k) CHECK(is_close(wide[n * length + k], sum[k], size));
    for (std::int64_t r = 0; r < rows; ++r) {
      double product = 0;
      for (std::int64_t k = 0; k < length; ++k) product += sum[k] * row[r * length + k];
      CHECK(is_close(wide[outputs * length + n * rows + r], product, size));
    }
  }
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const std::int64_t count : {1, 15, 16, 40, 64, 200, 512}) {
    inner_products_agree<T>(count, engine);
  }
  for (const std::int64_t outputs : {1, 5, 8, 11, 19}) {
    row_products_agree<T>(1, outputs, 16, engine);
    row_products_agree<T>(9, outputs, 70, engine);
  }
}

}  // namespace

int main() {
  std::mt19937_64 engine(11);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
