// What the calls from Python share: signals, time limits, threads and errors.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/assignment/error_message.h"
#include "core/interruption.h"
#include "problems.h"

namespace lwfm::python {

using Indices = py::array_t<std::int64_t, py::array::c_style>;
using Numbers = py::array_t<double, py::array::c_style>;

// The thread of the interpreter that runs the handlers of signals.
inline unsigned long main_thread = 0;

// Runs the handlers of signals that have arrived; whether one raised, as that of Ctrl-C does. Then
// its exception is set.
inline bool signal_raises() {
  const py::gil_scoped_acquire locked;
  return PyErr_CheckSignals() != 0;
}

// Ends a call by signals and, if it is given, after so many seconds from now.
inline Interruption make_interruption(std::optional<double> time_limit = std::nullopt) {
  using Clock = Interruption::Clock;
  constexpr double kLongest = 1e9;  // seconds; more would overflow the clock
  Clock::time_point deadline = Clock::time_point::max();
  if (time_limit && *time_limit < kLongest) {
    deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                  std::chrono::duration<double>(*time_limit));
  }
  const bool polls = PyThread_get_thread_ident() == main_thread;
  return Interruption(polls ? signal_raises : nullptr, deadline);
}

// Whether the call ended in time. Throws the exception of a signal's handler.
inline bool ended_in_time(const Interruption& interruption) {
  if (interruption.timed_out()) return false;
  if (interruption.requested()) throw py::error_already_set();
  return true;
}

// Problems per piece of work: enough that handing out a piece costs nothing beside solving it.
inline std::int64_t piece_length(const py::array& costs) {
  const std::int64_t entries = costs.shape(1) * costs.shape(2);
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, entries));
}

// Where problem b is in the caller's argument: nowhere if that is a single matrix.
inline std::vector<std::int64_t> place_of(std::int64_t b, bool single) {
  return single ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{b};
}

// Throws if a problem could not be solved, with the message of the first one.
template <class T>
void check_statuses(const std::vector<Status>& statuses, const Matrices<T>& costs, bool maximize,
                    const std::string& name, bool single) {
  const std::int64_t bad = first_failure(statuses);
  if (bad < 0) return;
  const Status status = statuses[static_cast<std::size_t>(bad)];
  throw std::invalid_argument(
      describe_failure(status, costs[bad], maximize, name, place_of(bad, single)));
}

// Each file of this folder adds its functions to the module.
void add_ranking(py::module_& module);
void add_bottleneck(py::module_& module);
void add_episode(py::module_& module);

}  // namespace lwfm::python
