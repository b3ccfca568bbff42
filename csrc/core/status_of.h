// Exceptions of a call as a status: workers never throw across threads.
#pragma once

#include <new>
#include <stdexcept>

#include "core/interruption.h"

namespace lwfm {

// What `work` returns, or that memory ran out, or that the caller ended the call.
template <class Status, class Work>
Status status_of(const Work& work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  } catch (const std::length_error&) {  // more entries than a vector can ever have
    return Status::out_of_memory;
  } catch (const Interrupted&) {
    return Status::interrupted;
  }
}

}  // namespace lwfm
