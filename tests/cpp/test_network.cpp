// network.h: random convolutions against the definition, their gradient as the adjoint, attacks inside their ball.
#include "small_network.h"

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
  // Errors of a convolution add up like steps by chance, and there may be no more than one in a logit.
  const double terms = static_cast<double>(c.window.height * c.window.width * c.images.channels);
  const double slack = tolerance * (static_cast<double>(c.pooled.size()) + std::sqrt(terms));
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
      expect_close("logit", n * c.classes + k, logits[n * c.classes + k], want, slack);
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
