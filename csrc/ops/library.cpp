// Schemas of every operator in the namespace lwfm. Kernels register beside their code; fakes and
// autograd in Python, beside the public function.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lwfm, library) {
  library.def("linear_assignment(Tensor cost, bool maximize=False) -> Tensor");
}
