// Ctrl-C during an operator. torch's dispatcher cannot carry the exception of a signal handler from
// a kernel to the caller, so it is kept here and raised after the operator has failed.
#pragma once

#include <Python.h>

#include "core/interruption.h"

namespace lwfm {

// call_interruptibly(function, *arguments): calls a Python function; where a kernel in it was ended
// by a signal handler's exception, raises that exception in place of the kernel's error.
PyObject* call_interruptibly(PyObject* module, PyObject* const* arguments, Py_ssize_t count);

// For a kernel on the calling thread: runs signal handlers now and then, within call_interruptibly
// only. A kernel whose interruption was requested must throw.
Interruption interruption_by_signals();

}  // namespace lwfm
