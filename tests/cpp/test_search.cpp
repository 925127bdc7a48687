// ascent.h, walk.h, squares.h: what a search returns lies in the ball, is misclassified or as it was, and does not
// depend on the other images.
#include "kernels/ascent.h"
#include "kernels/squares.h"
#include "kernels/walk.h"
#include "small_network.h"

constexpr double kEps = 0.3, kLow = 0.1, kHigh = 0.9;

template <typename T>
double length(const Case<T>& c, const Array<T>& adv, int64_t n, bool l2) {
  double square = 0, most = 0;
  for (int64_t i = n * c.images.size(); i < (n + 1) * c.images.size(); ++i) {
    const double d = std::abs(adv[i] - c.x[i]);
    square += d * d;
    most = std::fmax(most, d);
  }
  return l2 ? std::sqrt(square) : most;
}

template <typename T, typename Run>
void check(Case<T>& c, const Array<int64_t>& label, bool l2, bool clean_else, Run run) {
  Array<T> adv(c.x, integer(0, 3)), alone(c.x, integer(0, 3)), logits(c.rows * c.classes);
  run(c.as_images(adv.data()), 0, c.chunks());
  for (int64_t chunk = 0; chunk < c.chunks(); ++chunk) run(c.as_images(alone.data()), chunk, chunk + 1);
  const Images<T> none = {};
  network_gradient_cpu<T>(c.net, c.as_images(static_cast<const T*>(adv.data())), nullptr, logits.data(), none, 0,
                          c.chunks());
  for (int64_t n = 0; n < c.rows; ++n) {
    expect(length(c, adv, n, l2) <= kEps * (1 + 1e-5), "in the ball", n);
    Array<T> column(c.classes * kImageLanes);
    for (int64_t k = 0; k < c.classes; ++k) column[k * kImageLanes] = logits[n * c.classes + k];
    const bool broken = missed(column.data(), c.classes, label[n]);
    expect(!clean_else || broken || length(c, adv, n, l2) == 0, "broken or as it was", n);
  }
  for (int64_t i = 0; i < adv.size(); ++i) {
    expect(adv[i] >= T(kLow) && adv[i] <= T(kHigh), "in the range", i);
    expect(adv[i] == alone[i], "the same alone", i);
  }
}

template <typename T>
void check() {
  Case<T> c;
  for (int64_t i = 0; i < c.x.size(); ++i) c.x[i] = std::clamp<T>(c.x[i], T(kLow), T(kHigh));
  Array<int64_t> label(c.rows), target(c.rows);
  for (int64_t n = 0; n < c.rows; ++n) {
    label[n] = integer(0, c.classes - 1);
    target[n] = (label[n] + 1) % c.classes;
  }
  const Images<const T> clean = c.as_images(static_cast<const T*>(c.x.data()));
  const bool l2 = integer(0, 1) == 1;
  const int64_t* targets = integer(0, 1) == 1 && c.classes > 1 ? target.data() : nullptr;
  Array<int64_t> checks(2);
  checks[0] = 2;
  checks[1] = 4;
  const T eps = T(kEps), lo = T(kLow), hi = T(kHigh);
  const Ascent<T> ascent = {label.data(), targets, RowLoss::kCrossEntropy, l2, eps, lo, hi, 5, checks.data(), 2};
  check(c, label, l2, true, [&](const Images<T>& adv, int64_t begin, int64_t end) {
    network_ascent_cpu<T>(c.net, adv, clean, ascent, begin, end);
  });
  const Walk<T> walk = {label.data(), targets, l2, eps, lo, hi, 4};
  check(c, label, l2, true, [&](const Images<T>& adv, int64_t begin, int64_t end) {
    network_walk_cpu<T>(c.net, adv, clean, walk, begin, end);
  });
  const int64_t queries = integer(0, 9), side = integer(1, std::min(c.images.height, c.images.width));
  const auto numbers = random_array<float>(c.rows * queries * ((l2 ? 5 : 2) + c.images.channels),
                                           [](int64_t) { return std::fmin(uniform(), 0.999999); });
  const auto bumps = random_array<T>(2 * side * side, [](int64_t) { return uniform(); });
  const Squares<T> squares = {label.data(), numbers.data(), l2 ? bumps.data() : nullptr, queries, side, eps, lo, hi};
  check(c, label, l2, false, [&](const Images<T>& adv, int64_t begin, int64_t end) {
    network_squares_cpu<T>(c.net, adv, clean, squares, begin, end);
  });
}

int main() {
  for (int64_t i = 0; i < 30; ++i) {
    check<float>();
    check<double>();
  }
  return finish();
}
