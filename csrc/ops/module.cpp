// Makes the shared library importable as lwfm._ops; importing it registers the operators.
#include <Python.h>

#include "cuda/pair_plan.h"
#include "signals.h"

PyMODINIT_FUNC PyInit__ops(void) {
  static PyMethodDef methods[] = {
      {"call_interruptibly",
       reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&lwfm::call_interruptibly)),
       METH_FASTCALL, nullptr},
      {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   "_ops",
                                   "Operators of lwfm; see lwfm.ops.",
                                   -1,
                                   methods,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  PyObject* const module = PyModule_Create(&definition);
  if (module == nullptr) return nullptr;
  // For which architectures, or why none: decided by setup.py, shown by `lwfm info`.
  if (PyModule_AddStringConstant(module, "cuda_kernels", LWFM_CUDA_KERNELS) == 0 &&
      PyModule_AddIntConstant(module, "max_pair_positions", lwfm::kMaxPairPositions) == 0) {
    return module;
  }
  Py_DECREF(module);
  return nullptr;
}
