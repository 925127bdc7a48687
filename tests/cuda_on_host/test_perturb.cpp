// perturb.cu against perturb.h: the linf step bit for bit, the l2 step against the CPU twin in float64.
#include <type_traits>

#include "check.h"
#include "kernels/perturb.h"

using namespace bat_fast;

constexpr StepLimits<float> kLimits = {0.0078f, 0.0314f, 0.0f, 1.0f};

template <typename G>
G gradient(int64_t i) {
  constexpr double special[] = {0.0, -0.0, NAN, INFINITY, -INFINITY, 1e-7};
  return store<G>(static_cast<float>(i % 11 < 6 ? special[i % 11] : normal()));
}

template <typename T, typename G>
void check_step(int64_t count, int skip_adv, int skip_grad, int skip_clean) {
  const auto clean = Array<T>(random_array<T>(count, [](int64_t) { return uniform(); }), skip_clean);
  const auto start = random_array<T>(count, [](int64_t) { return uniform(); });
  Array<T> adv(start, skip_adv);
  Array<G> grad(count, skip_grad);
  for (int64_t i = 0; i < count; ++i) grad[i] = gradient<G>(i);
  linf_step_cuda(adv.data(), grad.data(), clean.data(), count, kLimits, nullptr);
  for (int64_t i = 0; i < count; ++i) {
    expect_same_bits("step", i, adv[i], store<T>(linf_step(load(start[i]), grad[i], load(clean[i]), kLimits)));
  }
}

template <typename T, typename G>
void check_steps() {
  for (const int64_t count : {0, 1, 3, 4, 5, 1023, 1024, 1027, 4099}) check_step<T, G>(count, 0, 0, 0);
  check_step<T, G>(1027, 1, 0, 0);
  check_step<T, G>(1027, 0, 3, 0);
  check_step<T, G>(1027, 0, 0, 2);
}

// Samples that one block keeps on chip, and samples of several chunks.
template <typename T, typename G>
void check_l2_step(int64_t samples, int64_t pixels, double scale = 1, int skip = 1) {
  const auto clean = random_array<T>(samples * pixels, [](int64_t) { return uniform(); });
  Array<T> adv(random_array<T>(clean.size(), [](int64_t) { return uniform(); }), skip);
  const auto grad =
      random_array<G>(clean.size(), [&](int64_t i) { return i % 12345 == 6 ? normal() : scale * normal(); });
  const auto wide_clean = widened<double>(clean);
  auto want = widened<double>(adv);
  const Array<double> wide_grad = widened<double>(grad);
  const double eps = 0.2 * std::sqrt(pixels);  // about half of the distance: the projection has work to do
  Array<float> scratch(l2_scratch(samples, pixels));
  l2_step_cuda(adv.data(), grad.data(), clean.data(), samples, pixels, scratch.data(),
               {0.5f, static_cast<float>(eps), 0.0f, 1.0f}, nullptr);
  l2_step_cpu(want.data(), wide_grad.data(), wide_clean.data(), pixels, 0, samples,
              {0.5, static_cast<float>(eps), 0.0, 1.0});
  const double tolerance = sizeof(T) == 4 ? 5e-6 : 5e-3;
  for (int64_t i = 0; i < adv.size(); ++i) expect_close("l2 step", i, load(adv[i]), want[i], tolerance);
}

template <typename T, typename G>
void check_l2_steps() {
  check_l2_step<T, G>(3, 105);
  check_l2_step<T, G>(2, 12289);
  check_l2_step<T, G>(2, 3080, 1, 0);
  if (std::is_same_v<G, half_bits>) return;   // which ends at 65504
  for (const double scale : {1e-30, 1e30}) {  // one entry of each sample or two is about 1
    check_l2_step<T, G>(3, 105, scale);
    check_l2_step<T, G>(2, 304, scale, 0);
    check_l2_step<T, G>(2, 20001, scale);
  }
}

template <typename T, typename G>
void check() {
  check_steps<T, G>();
  check_l2_steps<T, G>();
}

int main() {
  for (const int64_t pixels : {0, 1, 3072, 12288, 40001}) check_l2_step<float, float>(2, pixels);
  check_l2_step<float, float>(0, 105);
  check<float, float>();
  check<float, half_bits>();
  check<float, bfloat_bits>();
  check<half_bits, half_bits>();
  check<half_bits, bfloat_bits>();
  check<bfloat_bits, half_bits>();
  check<bfloat_bits, bfloat_bits>();
  return finish();
}
