// What the core makes of episodes, in the layout of the kernels; compiled apart and without
// sanitizers, because its vectors take those minutes to compile.
#pragma once

#include "episode_problems.h"

namespace tests {

template <class T>
EpisodeResults<T> results_of_core(const Episodes<T>& of);

template <class T>
EpisodeGradients<T> gradients_of_core(const Episodes<T>& of, const OutputGradients<T>& outputs);

}  // namespace tests
