// PGD on plain arrays: a random start, then steps along the sign of a gradient, which stay in the ball around the
// images.
#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels/perturb.h"
#include "kernels/random_start.h"

int main() {
  const int64_t samples = 8, channels = 3, side = 32, pixels = channels * side * side;
  const bat_fast::StepLimits<float> limits = {.step_size = 2 / 255.f, .eps = 8 / 255.f, .lo = 0, .hi = 1};

  std::vector<float> clean(samples * pixels), adv(clean.size()), grad(clean.size());
  std::vector<int64_t> index(samples);  // the samples' ids in the data set: the same id starts at the same point
  for (size_t i = 0; i < clean.size(); ++i) clean[i] = 0.5f + 0.5f * std::sin(0.1f * i);
  for (int64_t n = 0; n < samples; ++n) index[n] = 1000 + n;

  const bat_fast::ImageLayout layout = {samples, pixels, pixels, 1};
  bat_fast::linf_start_cpu(adv.data(), clean.data(), index.data(), layout, 0, samples, {.seed = 42, .draw = 0},
                           {limits.eps, limits.lo, limits.hi});
  for (int step = 0; step < 10; ++step) {
    for (size_t i = 0; i < grad.size(); ++i) grad[i] = adv[i] - 0.5f;  // a model's gradient in a real attack
    bat_fast::linf_step_cpu(adv.data(), grad.data(), clean.data(), 0, adv.size(), limits);
  }

  float farthest = 0;
  bool in_range = true;
  for (size_t i = 0; i < adv.size(); ++i) {
    farthest = std::fmax(farthest, std::abs(adv[i] - clean[i]));
    in_range &= adv[i] >= limits.lo && adv[i] <= limits.hi;
  }
  const bool inside = in_range && farthest <= limits.eps + 1e-6f;
  std::printf("largest change %.4f of %.4f allowed: %s the ball\n", farthest, limits.eps,
              inside ? "inside" : "OUTSIDE");
  return !inside;
}
