// Makes the shared library importable as lwfm._ops; importing it registers the operators.
#include <Python.h>

PyMODINIT_FUNC PyInit__ops(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   "_ops",
                                   "Operators of lwfm; see lwfm.ops.",
                                   -1,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
