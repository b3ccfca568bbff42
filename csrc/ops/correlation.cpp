// lwfm::correlation, all pairs of one layer in inference:
//   support [S, P, C], query [Q, M, C], support_compared [S, P, D], query_compared [Q, M, D]
//   -> a [Q, S, P], b [Q, S, M], similarity [Q, S], assignment [Q, S, P] int64.
// a and b as of lwfm::embedding_weights, similarity and assignment as of lwfm::feature_matching
// (empty if top_k is 0), in float64 for float64 features, else in float32. The CPU kernel calls
// the other operators in turn, from lwfm/ops/correlation.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "correlation(Tensor support, Tensor query, Tensor support_compared, Tensor query_compared, "
      "float temperature, int top_k) "
      "-> (Tensor a, Tensor b, Tensor similarity, Tensor assignment)");
}
