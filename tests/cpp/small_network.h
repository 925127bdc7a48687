// A small random network for the tests of what runs on it.
#pragma once

#include "check.h"
#include "kernels/network.h"

using namespace bat_fast;

inline int64_t integer(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator());
}

// A convolution, max pooling with windows of 2x1, and a linear layer, in arrays of exact size for the sanitizers.
template <typename T>
struct Case {
  int64_t rows = integer(1, 70), classes = integer(1, 12);
  Map images{integer(1, 7), integer(1, 7), integer(1, 4)}, maps{}, pooled{};
  Window window{}, pool{};
  Array<PlanLayer> layers{3};
  Array<T> x{0}, weights{0};
  Network<T> net{};

  Case() {
    window = {integer(1, 3), integer(1, 3), integer(1, 3), integer(1, 2), integer(0, 2), integer(0, 1)};
    window.height = std::min(window.height, images.height + 2 * window.pad_y);
    window.width = std::min(window.width, images.width + 2 * window.pad_x);
    maps = {(images.height + 2 * window.pad_y - window.height) / window.stride_y + 1,
            (images.width + 2 * window.pad_x - window.width) / window.stride_x + 1, integer(1, 19)};
    pool = {std::min<int64_t>(2, maps.height), 1, 1, 1, 0, 0};
    pooled = {maps.height - pool.height + 1, maps.width, maps.channels};
    const int64_t kernel = window.height * window.width * images.channels * maps.channels;
    const int64_t head = pooled.size() * classes, bias = kernel + head;
    const int64_t first = images.size(), second = first + maps.size(), last = second + pooled.size();
    const Map row{1, 1, pooled.size()}, out{1, 1, classes};
    layers[0] = {LayerKind::kWindow, 0, -1, -1, first, Activation::kNone, images, maps, window, 0, bias, 0, 0};
    layers[1] = {LayerKind::kMaxPool, first, -1, -1, second, Activation::kNone, maps, pooled, pool, -1, -1, 0, 0};
    layers[2] = {LayerKind::kWindow, second, -1, -1, last, Activation::kNone, row, out,
                 {1, 1, 1, 1, 0, 0}, kernel, -1, 0,  0};
    x = random_array<T>(rows * images.size(), [](int64_t) { return uniform(); });
    weights = random_array<T>(bias + maps.channels, [](int64_t) { return normal(); });
    net = {layers.data(), 3, weights.data(), images, last + classes};
  }
  template <typename U>
  Images<U> as_images(U* data) const {  // [rows, channels, height, width]
    return {data, rows, images.size(), images.pixels(), images.width, 1};
  }
  int64_t chunks() const { return (rows + kImageLanes - 1) / kImageLanes; }
};
