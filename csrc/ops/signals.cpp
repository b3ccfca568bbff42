#include "signals.h"

#include <utility>

namespace {

// One call of call_interruptibly, with the exception that a signal handler has raised in it.
struct Call {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
};

thread_local Call* current_call = nullptr;

// Runs the handlers of signals that have arrived; whether one raised, as that of Ctrl-C does.
bool signal_raises() {
  Call* const call = std::exchange(current_call, nullptr);  // handlers make calls of their own
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raises = PyErr_CheckSignals() != 0;
  if (raises) PyErr_Fetch(&call->type, &call->value, &call->traceback);
  PyGILState_Release(state);
  current_call = call;
  return raises;
}

}  // namespace

namespace lwfm {

PyObject* call_interruptibly(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count < 1) {
    PyErr_SetString(PyExc_TypeError, "call_interruptibly needs a function");
    return nullptr;
  }
  Call call;
  Call* const outer = std::exchange(current_call, &call);
  const auto given = static_cast<std::size_t>(count - 1);
  PyObject* const result = PyObject_Vectorcall(arguments[0], arguments + 1, given, nullptr);
  current_call = outer;
  if (call.type == nullptr) return result;
  Py_XDECREF(result);
  PyErr_Restore(call.type, call.value, call.traceback);
  return nullptr;
}

Interruption interruption_by_signals() {
  const bool polls = current_call != nullptr && current_call->type == nullptr;
  return Interruption(polls ? signal_raises : nullptr);
}

}  // namespace lwfm
