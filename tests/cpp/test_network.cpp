// network.h: random convolutions against the definition, their gradient as the adjoint, attacks inside their ball.
#include "check.h"
#include "kernels/network.h"

using namespace bat_fast;

int64_t integer(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator()); }

// A convolution, max pooling with windows of 2x1, and a linear layer, in arrays of exact size for the sanitizers.
template <typename T>
struct Case {
  int64_t rows = integer(1, 35), classes = integer(1, 12);
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

template <typename T>
double pixel(const Case<T>& c, int64_t n, int64_t channel, int64_t y, int64_t x) {
  if (y < 0 || x < 0 || y >= c.images.height || x >= c.images.width) return 0;
  return c.x[((n * c.images.channels + channel) * c.images.height + y) * c.images.width + x];
}

// The largest of what the pool sees at (y, x) of a channel of image n, by the definition.
template <typename T>
double value(const Case<T>& c, int64_t n, int64_t out, int64_t y, int64_t x) {
  double best = -INFINITY;
  for (int64_t row = y; row < y + c.pool.height; ++row) {
    double sum = c.weights[c.layers[0].bias + out];
    int64_t w = out * c.window.height * c.window.width * c.images.channels;
    for (int64_t ky = 0; ky < c.window.height; ++ky) {
      for (int64_t kx = 0; kx < c.window.width; ++kx) {
        for (int64_t in = 0; in < c.images.channels; ++in, ++w) {
          sum += c.weights[w] * pixel(c, n, in, row * c.window.stride_y + ky - c.window.pad_y,
                                      x * c.window.stride_x + kx - c.window.pad_x);
        }
      }
    }
    best = std::fmax(best, sum);
  }
  return best;
}

template <typename T>
void check(double tolerance) {
  Case<T> c;
  Array<T> logits(c.rows * c.classes), grad_x(c.x.size());
  auto grad = random_array<T>(logits.size(), [](int64_t) { return normal(); });
  const T* x = c.x.data();
  network_gradient_cpu<T>(c.net, c.as_images(x), grad.data(), logits.data(), c.as_images(grad_x.data()), 0, c.chunks());
  for (int64_t n = 0; n < c.rows; ++n) {
    for (int64_t k = 0; k < c.classes; ++k) {
      double want = 0;
      int64_t w = c.layers[2].weight + k * c.pooled.size();
      for (int64_t p = 0; p < c.pooled.pixels(); ++p) {
        for (int64_t out = 0; out < c.maps.channels; ++out, ++w) {
          want += c.weights[w] * value(c, n, out, p / c.pooled.width, p % c.pooled.width);
        }
      }
      expect_close("logit", n * c.classes + k, logits[n * c.classes + k], want, tolerance * c.pooled.size());
    }
  }
  // The network is linear around x: without biases <grad, logits> = <grad_x, x>.
  for (int64_t out = 0; out < c.maps.channels; ++out) c.weights[c.layers[0].bias + out] = T(0);
  network_gradient_cpu<T>(c.net, c.as_images(x), grad.data(), logits.data(), c.as_images(grad_x.data()), 0, c.chunks());
  double forward = 0, backward = 0, size = 0;
  for (int64_t i = 0; i < logits.size(); ++i) forward += grad[i] * logits[i], size += std::abs(grad[i] * logits[i]);
  for (int64_t i = 0; i < c.x.size(); ++i) backward += grad_x[i] * c.x[i];
  expect_close("adjoint", 0, (backward - forward) / (size + 1), 0, 10 * tolerance);

  Array<T> adv(c.x, integer(0, 3));
  const auto target = random_array<double>(c.rows, [&](int64_t) { return integer(0, c.classes - 1); });
  Array<int64_t> labels(c.rows);
  for (int64_t n = 0; n < c.rows; ++n) labels[n] = static_cast<int64_t>(target[n]);
  const Attack<T> loss = {RowLoss::kCrossEntropy, false, nullptr, nullptr, nullptr, T(0)};
  const bool l2 = integer(0, 1) == 1;
  const Climb<T> how = {labels.data(), loss, {T(0.03), T(0.05), T(0.1), T(0.9)}, l2, 3};
  network_attack_cpu<T>(c.net, c.as_images(adv.data()), c.as_images(x), how, 0, c.chunks());
  for (int64_t i = 0; i < adv.size(); ++i) {
    const double moved = std::abs(adv[i] - std::clamp<double>(c.x[i], 0.1, 0.9));
    expect(adv[i] >= T(0.1) && adv[i] <= T(0.9) && moved <= 0.0501, "pixel in the ball", i);
  }
}

int main() {
  for (int64_t i = 0; i < 60; ++i) {
    check<float>(2e-6);
    check<double>(1e-13);
  }
  return finish();
}
