// The small constants of the mathematics, the same as in lwfm/ops: STANDARDIZE_EPS is in
// embedding_weights.py, the others are in _expressions.py.
#pragma once

namespace lwfm {

constexpr double kCosineEps = 1e-8;       // COSINE_EPS: the smallest norm a cosine divides by
constexpr double kCorrelationEps = 1e-6;  // CORRELATION_EPS: added to squared norms in correlations
constexpr double kStandardizeEps = 1e-5;  // STANDARDIZE_EPS: added to variances

}  // namespace lwfm
