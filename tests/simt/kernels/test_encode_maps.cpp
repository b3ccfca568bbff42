// The kernels of encode_maps, executed under emulation, against the arithmetic of the core.
#include "core/matching/positions.h"
#include "cuda/encode_kernels.h"
#include "pair_problems.h"

namespace {

using tests::random_vector;
using tests::size;

// Layers of images in two batches, each in a buffer of its own, with strides of their own.
struct Layers {
  std::int64_t first_images, images;
  std::vector<std::int64_t> heights, widths, channels;
  bool channels_last, together, embedded;

  std::size_t count() const { return channels.size(); }
  std::int64_t P(std::size_t l) const { return heights[l] * widths[l]; }
  std::int64_t H(std::size_t l) const { return (channels[l] + 1) / 2; }
  std::int64_t rows(std::size_t l) const { return images * P(l); }
  std::int64_t numbers(std::size_t l) const { return rows(l) * channels[l]; }
  std::int64_t image_stride(std::size_t l) const { return P(l) * channels[l]; }

  template <class T>
  lwfm::MapView<T> view(T* maps, std::size_t l, std::int64_t image) const {
    const std::int64_t C = channels[l], W = widths[l];
    T* const data = maps + image * image_stride(l);
    if (channels_last) return {data, C, heights[l], W, 1, W * C, C};
    return {data, C, heights[l], W, P(l), W, 1};
  }

  template <class T>
  lwfm::MapsOfLayer<T> maps(T* first, T* second, std::size_t l) const {
    return {{view(first, l, 0), view(second, l, 0)}, {image_stride(l), image_stride(l)}};
  }

  // The arguments of all layers but what `fill(l)` makes of each.
  template <class Layer, class Fill>
  lwfm::EncodeArguments<Layer> arguments(bool record, const Fill& fill) const {
    lwfm::EncodeArguments<Layer> all{
        images, first_images, together, record, static_cast<int>(count()), {}};
    for (std::size_t l = 0; l < count(); ++l) all.of[l] = fill(l);
    return all;
  }

  double terms() const {
    double sum = 0.0;
    for (const std::int64_t C : channels) sum += static_cast<double>(C);
    return sum;
  }
};

// Maps of each layer: of the first batch and of the second.
template <class T>
struct Maps {
  std::vector<std::vector<T>> first, second;

  Maps(const Layers& of, std::mt19937_64& engine) {
    for (std::size_t l = 0; l < of.count(); ++l) {
      first.push_back(random_vector<T>(of.first_images * of.image_stride(l), engine));
      second.push_back(
          random_vector<T>((of.images - of.first_images) * of.image_stride(l), engine));
    }
  }

  lwfm::MapView<const T> view(const Layers& of, std::size_t l, std::int64_t image) const {
    const bool in_first = image < of.first_images;
    return of.view((in_first ? first : second)[l].data(), l,
                   in_first ? image : image - of.first_images);
  }
};

template <class T>
struct Encoded {
  std::vector<std::vector<T>> positions, squares, grams, hidden, rectified, embedded,
      embedded_squares;

  // `hidden` and `rectified` are what products of matrices are before the rectifiers.
  Encoded(const Layers& of, const Encoded* from) {
    for (std::size_t l = 0; l < of.count(); ++l) {
      positions.emplace_back(size(of.numbers(l)), T{-7});
      squares.emplace_back(size(of.rows(l)), T{-7});
      grams.emplace_back(size(of.rows(l) * of.P(l)), T{-7});
      embedded.emplace_back(size(of.embedded ? of.numbers(l) : 0), T{-7});
      embedded_squares.emplace_back(size(of.embedded ? of.rows(l) : 0), T{-7});
    }
    if (from == nullptr) return;
    hidden = from->hidden;
    rectified = from->rectified;
  }

  lwfm::EncodeArguments<lwfm::EncodedLayer<T>> arguments(const Layers& of, const Maps<T>& maps,
                                                         bool record) {
    return of.arguments<lwfm::EncodedLayer<T>>(record, [&](std::size_t l) {
      lwfm::EncodedLayer<T> layer{};
      layer.maps = of.maps<const T>(maps.first[l].data(), maps.second[l].data(), l);
      layer.positions = positions[l].data();
      layer.squares = squares[l].data();
      layer.grams = grams[l].data();
      if (!of.embedded) return layer;
      layer.H = of.H(l);
      layer.hidden = hidden[l].data();
      layer.rectified = rectified[l].data();
      layer.embedded = embedded[l].data();
      layer.embedded_squares = embedded_squares[l].data();
      return layer;
    });
  }
};

template <class T>
T rectified(T x) {
  return x < T{0} ? T{0} : x;
}

// `to` has hidden and rectified before the rectifiers, and afterwards behind them.
template <class T>
void encode_by_core(const Layers& of, const Maps<T>& maps, Encoded<T>& to) {
  const std::size_t step = of.together ? of.count() : 1;
  for (std::int64_t image = 0; image < of.images; ++image) {
    std::vector<lwfm::LayerPositions<T>> layers;
    for (std::size_t l = 0; l < of.count(); ++l) {
      layers.push_back({maps.view(of, l, image),
                        to.positions[l].data() + image * of.image_stride(l),
                        to.squares[l].data() + image * of.P(l)});
    }
    for (std::size_t l = 0; l < of.count(); l += step) {
      lwfm::centered_positions<lwfm::kNarrow>(layers.data() + l, static_cast<std::int64_t>(step));
    }
  }
  for (std::size_t l = 0; l < of.count(); ++l) {
    const std::int64_t P = of.P(l), C = of.channels[l];
    for (std::int64_t n = 0; n < of.rows(l) * P; ++n) {
      const T* const x = to.positions[l].data() + n / P * C;
      const T* const other = to.positions[l].data() + (n / P / P * P + n % P) * C;
      T sum{0};
      for (std::int64_t c = 0; c < C; ++c) sum += x[c] * other[c];
      to.grams[l][size(n)] = sum;
    }
    if (!of.embedded) continue;
    for (T& x : to.hidden[l]) x = rectified(x);
    std::fill(to.embedded_squares[l].begin(), to.embedded_squares[l].end(), T{0});
    for (std::int64_t k = 0; k < of.numbers(l); ++k) {
      T& x = to.rectified[l][size(k)];
      x = rectified(x);
      const T sum = to.positions[l][size(k)] + x;
      to.embedded[l][size(k)] = sum;
      to.embedded_squares[l][size(k / C)] += sum * sum;
    }
  }
}

template <class T>
void encoded_equal_the_core(const Layers& of, const Maps<T>& maps, std::mt19937_64& engine) {
  Encoded<T> products(of, nullptr);
  for (std::size_t l = 0; of.embedded && l < of.count(); ++l) {
    products.hidden.push_back(random_vector<T>(of.rows(l) * of.H(l), engine));
    products.rectified.push_back(random_vector<T>(of.numbers(l), engine));
  }
  Encoded<T> expected(of, &products);
  encode_by_core(of, maps, expected);
  for (const bool record : {true, false}) {
    simt::for_each_schedule([&] {
      Encoded<T> actual(of, &products);
      const auto arguments = actual.arguments(of, maps, record);
      lwfm::center_maps(arguments, nullptr);
      if (of.embedded) lwfm::rectify_hidden(arguments, nullptr);
      lwfm::finish_encoding(arguments, nullptr);
      for (std::size_t l = 0; l < of.count(); ++l) {
        CHECK(tests::close(actual.positions[l], expected.positions[l], of.terms()));
        CHECK(tests::close(actual.squares[l], expected.squares[l], of.terms()));
        CHECK(tests::close(actual.grams[l], expected.grams[l], of.terms()));
        CHECK(tests::close(actual.embedded[l], expected.embedded[l], of.terms()));
        CHECK(tests::close(actual.embedded_squares[l], expected.embedded_squares[l], of.terms()));
        if (!of.embedded) continue;
        CHECK(actual.hidden[l] == expected.hidden[l]);
        CHECK(actual.rectified[l] == (record ? expected : products).rectified[l]);
      }
    });
  }
}

// Inputs of the backward pass, and what it writes.
template <class T>
struct GradientCase {
  Encoded<T> forward;
  std::vector<std::vector<T>> positions_grad, embedded_grad, hidden_product, product;

  GradientCase(const Layers& of, const Maps<T>& maps, std::mt19937_64& engine)
      : forward(of, nullptr) {
    for (std::size_t l = 0; l < of.count(); ++l) {
      forward.hidden.push_back(random_vector<T>(of.rows(l) * of.H(l), engine));
      forward.rectified.push_back(random_vector<T>(of.numbers(l), engine));
      positions_grad.push_back(random_vector<T>(of.numbers(l), engine));
      embedded_grad.push_back(random_vector<T>(of.numbers(l), engine));
      hidden_product.push_back(random_vector<T>(of.rows(l) * of.H(l), engine));
      product.push_back(random_vector<T>(of.numbers(l), engine));
    }
    encode_by_core(of, maps, forward);
  }
};

template <class T>
Maps<T> maps_gradient_of_core(const Layers& of, const GradientCase<T>& from, Maps<T> to) {
  const std::size_t step = of.together ? of.count() : 1;
  std::vector<std::vector<T>> grads = from.positions_grad;
  for (std::size_t l = 0; of.embedded && l < of.count(); ++l) {
    for (std::size_t k = 0; k < grads[l].size(); ++k) {
      grads[l][k] += from.embedded_grad[l][k] + from.product[l][k];
    }
  }
  for (std::int64_t image = 0; image < of.images; ++image) {
    const bool in_first = image < of.first_images;
    const std::int64_t number = in_first ? image : image - of.first_images;
    std::vector<lwfm::LayerPositionsGradient<T>> layers;
    for (std::size_t l = 0; l < of.count(); ++l) {
      const std::int64_t at = image * of.image_stride(l);
      layers.push_back({from.forward.positions[l].data() + at, grads[l].data() + at, nullptr,
                        of.view((in_first ? to.first : to.second)[l].data(), l, number)});
    }
    for (std::size_t l = 0; l < of.count(); l += step) {
      lwfm::centered_positions_backward<lwfm::kNarrow>(layers.data() + l,
                                                       static_cast<std::int64_t>(step));
    }
  }
  return to;
}

template <class T>
std::vector<T> masked(const std::vector<T>& x, const std::vector<T>& by) {
  std::vector<T> result(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) result[k] = by[k] > T{0} ? x[k] : T{0};
  return result;
}

template <class T>
void gradients_equal_the_core(const Layers& of, const Maps<T>& maps, std::mt19937_64& engine) {
  const GradientCase<T> from(of, maps, engine);
  const Maps<T> expected = maps_gradient_of_core(of, from, maps);
  simt::for_each_schedule([&] {
    Maps<T> actual = maps;
    for (auto* batch : {&actual.first, &actual.second}) {
      for (auto& map : *batch) map.assign(map.size(), T{-7});
    }
    auto rectified_grad = from.product, hidden_grad = from.hidden_product;
    const auto arguments = of.arguments<lwfm::EncodedLayerGradient<T>>(true, [&](std::size_t l) {
      lwfm::EncodedLayerGradient<T> layer{};
      layer.maps = of.maps<T>(actual.first[l].data(), actual.second[l].data(), l);
      layer.positions_grad = from.positions_grad[l].data();
      if (!of.embedded) return layer;
      layer.H = of.H(l);
      layer.hidden = from.forward.hidden[l].data();
      layer.rectified = from.forward.rectified[l].data();
      layer.embedded_grad = from.embedded_grad[l].data();
      layer.rectified_grad = rectified_grad[l].data();
      layer.hidden_grad = hidden_grad[l].data();
      layer.product = from.product[l].data();
      return layer;
    });
    if (of.embedded) {
      lwfm::mask_rectified(arguments, nullptr);
      lwfm::mask_hidden(arguments, nullptr);
    }
    lwfm::differentiate_centering(arguments, nullptr);
    for (std::size_t l = 0; l < of.count(); ++l) {
      CHECK(tests::close(actual.first[l], expected.first[l], of.terms()));
      CHECK(tests::close(actual.second[l], expected.second[l], of.terms()));
      if (!of.embedded) continue;
      CHECK(rectified_grad[l] == masked(from.embedded_grad[l], from.forward.rectified[l]));
      CHECK(hidden_grad[l] == masked(from.hidden_product[l], from.forward.hidden[l]));
    }
  });
}

template <class T>
void check_all(std::mt19937_64& engine) {
  for (const bool channels_last : {false, true}) {
    for (const Layers& layers :
         {Layers{1, 3, {3, 3}, {3, 3}, {40, 7}, channels_last, true, true},
          Layers{1, 1, {1}, {1}, {1}, channels_last, true, false},
          Layers{2, 3, {2, 1, 3}, {5, 3, 3}, {33, 1, 35}, channels_last, false, true},
          Layers{0, 2, {2, 2}, {1, 1}, {8, 6}, channels_last, false, false}}) {
      const Maps<T> maps(layers, engine);
      encoded_equal_the_core(layers, maps, engine);
      gradients_equal_the_core(layers, maps, engine);
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
