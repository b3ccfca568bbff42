// Schemas of every operator in the namespace lwfm. Kernels register beside their code; fakes and
// autograd in Python, beside the public function.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lwfm, library) {
  library.def("linear_assignment(Tensor cost, bool maximize=False) -> Tensor");
  library.def(
      "embedding_weights(Tensor raw, Tensor row_scale, Tensor column_scale, float temperature) "
      "-> (Tensor a, Tensor b, Tensor reached)");
  library.def(
      "embedding_weights_backward(Tensor grad_a, Tensor grad_b, Tensor grad_reached, Tensor raw, "
      "Tensor row_scale, Tensor column_scale, float temperature) -> (Tensor, Tensor, Tensor)");
  library.def(
      "pixel_matching(Tensor raw, Tensor row_scale, Tensor column_scale, Tensor compared, "
      "Tensor compared_row_scale, Tensor compared_column_scale, int top_k) "
      "-> (Tensor similarity, Tensor assignment)");
  library.def(
      "pixel_matching_backward(Tensor grad, Tensor compared, Tensor row_scale, "
      "Tensor column_scale, Tensor assignment, int top_k) -> (Tensor, Tensor, Tensor)");
  library.def(
      "correlation(Tensor support, Tensor query, Tensor support_compared, Tensor query_compared, "
      "float temperature, int top_k) "
      "-> (Tensor a, Tensor b, Tensor reached, Tensor similarity, Tensor assignment)");
  library.def("centered_positions(Tensor[] maps, int[] dims, bool together) -> Tensor[]");
  library.def(
      "centered_positions_backward(Tensor[] grads, Tensor[] positions, int[] heights, "
      "bool together) -> Tensor[]");
  library.def(
      "feature_matching(Tensor raw, Tensor row_scale, Tensor column_scale, Tensor support, "
      "Tensor query, int top_k) -> (Tensor similarity, Tensor assignment, Tensor cosines)");
  library.def(
      "feature_matching_backward(Tensor grad, Tensor support, Tensor query, Tensor assignment, "
      "Tensor cosines, int top_k) -> (Tensor, Tensor)");
  library.def(
      "class_terms(Tensor a, Tensor b, Tensor support, Tensor query, Tensor images, "
      "Tensor begin) -> (Tensor inner, Tensor square_s, Tensor square_q, Tensor features)");
  library.def(
      "class_terms_backward(Tensor grad_inner, Tensor grad_square_s, Tensor grad_square_q, "
      "Tensor grad_features, Tensor a, Tensor b, Tensor support, Tensor query, Tensor images, "
      "Tensor begin) -> (Tensor, Tensor, Tensor, Tensor)");
}
