// The kernels of centered positions, executed under emulation, against the arithmetic of the core.
#include "core/matching/positions.h"
#include "cuda/feature_kernels.h"
#include "pair_problems.h"

namespace {

// Layers of some images whose maps stand in one buffer, with strides of their own.
struct Layers {
  std::int64_t images, height, width;
  std::vector<std::int64_t> channels;
  bool channels_last;

  std::int64_t P() const { return height * width; }
  std::int64_t total() const {
    std::int64_t sum = 0;
    for (const std::int64_t C : channels) sum += C;
    return sum;
  }
  std::int64_t image_stride() const { return total() * P(); }

  template <class T>
  lwfm::MapView<T> view(T* maps, std::size_t l, std::int64_t image) const {
    std::int64_t first = 0;
    for (std::size_t k = 0; k < l; ++k) first += channels[k];
    T* const data = maps + image * image_stride();
    if (channels_last) {
      return {data + first, channels[l], height, width, 1, width * total(), total()};
    }
    return {data + first * P(), channels[l], height, width, P(), width, 1};
  }
};

// [images, P, C_l] or, for squares, [images, P] of each layer.
template <class T>
struct Outputs {
  std::vector<std::vector<T>> positions, squares;

  explicit Outputs(const Layers& layers) {
    for (const std::int64_t C : layers.channels) {
      positions.emplace_back(tests::size(layers.images * layers.P() * C), T{-7});
      squares.emplace_back(tests::size(layers.images * layers.P()), T{-7});
    }
  }
};

template <class T>
Outputs<T> of_core(const Layers& layers, const std::vector<T>& maps) {
  Outputs<T> result(layers);
  for (std::int64_t b = 0; b < layers.images; ++b) {
    std::vector<lwfm::LayerPositions<T>> of_image;
    for (std::size_t l = 0; l < layers.channels.size(); ++l) {
      of_image.push_back({layers.view(maps.data(), l, b),
                          result.positions[l].data() + b * layers.P() * layers.channels[l],
                          result.squares[l].data() + b * layers.P()});
    }
    lwfm::centered_positions<lwfm::kNarrow>(of_image.data(),
                                            static_cast<std::int64_t>(of_image.size()));
  }
  return result;
}

template <class T>
void positions_equal_the_core(const Layers& layers, const std::vector<T>& maps) {
  const Outputs<T> expected = of_core(layers, maps);
  simt::for_each_schedule([&] {
    Outputs<T> actual(layers);
    lwfm::PositionsArguments<T> arguments{
        layers.images, static_cast<int>(layers.channels.size()), {}};
    for (std::size_t l = 0; l < layers.channels.size(); ++l) {
      arguments.of[l] = {layers.view(maps.data(), l, 0), layers.image_stride(),
                         actual.positions[l].data(), actual.squares[l].data()};
    }
    lwfm::center_images(arguments, nullptr);
    for (std::size_t l = 0; l < layers.channels.size(); ++l) {
      const auto terms = static_cast<double>(layers.total());
      CHECK(tests::close(actual.positions[l], expected.positions[l], terms));
      CHECK(tests::close(actual.squares[l], expected.squares[l], terms));
    }
  });
}

template <class T>
void gradient_equals_the_core(const Layers& layers, const std::vector<T>& maps,
                              std::mt19937_64& engine) {
  const Outputs<T> forward = of_core(layers, maps);
  Outputs<T> grads(layers);
  for (auto& x : grads.positions) x = tests::random_vector<T>(x.size(), engine);
  for (auto& x : grads.squares) x = tests::random_vector<T>(x.size(), engine);
  std::vector<T> expected(maps.size());
  for (std::int64_t b = 0; b < layers.images; ++b) {
    std::vector<lwfm::LayerPositionsGradient<T>> of_image;
    for (std::size_t l = 0; l < layers.channels.size(); ++l) {
      const std::int64_t at = b * layers.P() * layers.channels[l];
      of_image.push_back({forward.positions[l].data() + at, grads.positions[l].data() + at,
                          grads.squares[l].data() + b * layers.P(),
                          layers.view(expected.data(), l, b)});
    }
    lwfm::centered_positions_backward<lwfm::kNarrow>(of_image.data(),
                                                     static_cast<std::int64_t>(of_image.size()));
  }
  simt::for_each_schedule([&] {
    std::vector<T> actual(maps.size(), std::numeric_limits<T>::quiet_NaN());
    lwfm::PositionsGradientArguments<T> arguments{
        layers.images, static_cast<int>(layers.channels.size()), {}};
    for (std::size_t l = 0; l < layers.channels.size(); ++l) {
      arguments.of[l] = {layers.view(actual.data(), l, 0), layers.image_stride(),
                         forward.positions[l].data(), grads.positions[l].data(),
                         grads.squares[l].data()};
    }
    lwfm::center_images_backward(arguments, nullptr);
    CHECK(tests::close(actual, expected, static_cast<double>(layers.total())));
  });
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const bool channels_last : {false, true}) {
    for (const Layers& layers :
         {Layers{2, 3, 3, {40, 7}, channels_last}, Layers{1, 1, 1, {1}, channels_last},
          Layers{3, 2, 5, {33, 1, 64}, channels_last}, Layers{0, 3, 3, {8}, channels_last}}) {
      const auto maps = tests::random_vector<T>(layers.images * layers.image_stride(), engine);
      positions_equal_the_core(layers, maps);
      gradient_equals_the_core(layers, maps, engine);
    }
  }
}

}  // namespace

int main() {
  std::mt19937_64 engine(17);
  check_all<float>(engine);
  check_all<double>(engine);
  return check::result();
}
