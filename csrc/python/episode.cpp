// Bindings of one episode: queries compared with the classes of support images.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "calls.h"
#include "core/matching/episode_run.h"
#include "core/matching/serial_products.h"
#include "core/thread_pool.h"

namespace lwfm::python {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

// Shares pieces of work among threads. A piece that finds no memory, and all that follow, are left
// out.
class Threads {
 public:
  Threads(std::int64_t count, Interruption& interruption)
      : count_(count), interruption_(interruption) {}

  template <class Work>
  void operator()(std::int64_t count, const Work& work) const {
    const auto piece = [&](std::int64_t begin, std::int64_t end) {
      try {
        for (std::int64_t n = begin; n < end && !out_of_memory_; ++n) work(n);
      } catch (const std::bad_alloc&) {
        out_of_memory_ = true;
      }
    };
    share_work(count, 1, count_, piece, &interruption_);
  }

  bool out_of_memory() const { return out_of_memory_; }

 private:
  std::int64_t count_;
  Interruption& interruption_;
  mutable std::atomic<bool> out_of_memory_{false};
};

std::vector<PoolLayer<float>> layers_of(const std::vector<Floats>& positions,
                                        const std::vector<Floats>& squares,
                                        const std::vector<Floats>& grams,
                                        const std::vector<Floats>& embedded,
                                        const std::vector<Floats>& embedded_squares) {
  std::vector<PoolLayer<float>> layers;
  for (std::size_t l = 0; l < positions.size(); ++l) {
    const bool has = !embedded.empty();
    layers.push_back({positions[l].shape(1), positions[l].shape(2), has ? embedded[l].shape(2) : 0,
                      positions[l].data(), squares[l].data(), grams[l].data(),
                      has ? embedded[l].data() : nullptr,
                      has ? embedded_squares[l].data() : nullptr});
  }
  return layers;
}

// Compares images S, S + 1, ..., of positions [n, P, C], squares [n, P], grams [n, P, P], embedded
// [n, P, D] and embedded_squares [n, P] (or none) of each layer, with the classes of the first S:
// order [S] lists these class by class, begin [way + 1] says where classes begin. Returns base and
// matching [n - S, way]. The other arguments are those of lwfm::EpisodeOptions.
std::pair<Floats, Floats> compare_episode(
    const std::vector<Floats>& positions, const std::vector<Floats>& squares,
    const std::vector<Floats>& grams, const std::vector<Floats>& embedded,
    const std::vector<Floats>& embedded_squares, const Indices& order, const Indices& begin,
    double temperature, std::int64_t top_k, bool mean_over_layers, bool merge_shots,
    std::int64_t threads) {
  const auto layers = layers_of(positions, squares, grams, embedded, embedded_squares);
  const EpisodeOptions options{temperature, top_k, mean_over_layers, merge_shots, false};
  const std::int64_t S = order.size(), Q = positions[0].shape(0) - S, way = begin.size() - 1;
  const EpisodeImages images{1, S, Q, {way, begin.data(), order.data()}, nullptr, nullptr};
  Floats base({Q, way}), matching({Q, way});
  float* const bases = base.mutable_data();
  float* const matches = matching.mutable_data();
  Interruption interruption = make_interruption();
  const Threads in_parallel(threads, interruption);
  FirstFailure failure;
  {
    const py::gil_scoped_release unlocked;
    EpisodeTerms<float> terms(layers.size(), images, options);
    run_episodes(layers, images, options, terms.results, failure, in_parallel, SerialProducts{});
    const EpisodeSums<float> sums{images, options, terms.results};
    for (std::int64_t q = 0; q < Q; ++q) {
      for (std::int64_t c = 0; c < way; ++c) {
        bases[q * way + c] = sums.base(0, q, c);
        matches[q * way + c] = sums.matching(0, q, c);
      }
    }
  }
  ended_in_time(interruption);
  if (in_parallel.out_of_memory()) throw std::bad_alloc();
  if (failure.failed()) throw std::invalid_argument(failure.message());
  return {base, matching};
}

}  // namespace

void add_episode(py::module_& module) {
  module.def("compare_episode", &compare_episode, py::arg("positions"), py::arg("squares"),
             py::arg("grams"), py::arg("embedded"), py::arg("embedded_squares"), py::arg("order"),
             py::arg("begin"), py::arg("temperature"), py::arg("top_k"),
             py::arg("mean_over_layers"), py::arg("merge_shots"), py::arg("threads"));
}

}  // namespace lwfm::python
