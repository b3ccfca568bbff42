// Which instruction set the solver runs on.
#pragma once

namespace lwfm {

// The name of the widest vector code that this processor and build use.
inline const char* simd_level() { return "portable"; }

}  // namespace lwfm
