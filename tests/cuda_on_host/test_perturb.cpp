// perturb.cu against the element math of perturb.h, bit for bit.
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

template <typename T>
void check_start(ImageLayout layout) {
  const StartKey key = {0x123456789abcdefull, 7};
  const auto clean = random_array<T>(layout.samples * layout.pixels, [](int64_t) { return uniform(); });
  Array<int64_t> index(layout.samples);
  for (int64_t n = 0; n < layout.samples; ++n) index[n] = n % 2 ? n : (1ll << 40) + 3 * n;
  Array<T> out(clean.size());
  linf_start_cuda(out.data(), clean.data(), index.data(), layout, key, kLimits, nullptr);
  const float unit = kLimits.eps / 16777216.0f;
  for (int64_t n = 0; n < layout.samples; ++n) {
    for (int64_t p = 0; p < layout.pixels; ++p) {
      const int64_t at = n * layout.pixels + layout.offset(p);
      const Philox r = philox(key.seed, static_cast<uint32_t>(p / 4), key.draw, static_cast<uint64_t>(index[n]));
      const float want = linf_start(load(clean[at]), r.word[p % 4], unit, kLimits.lo, kLimits.hi);
      expect_same_bits("start", at, out[at], store<T>(want));
    }
  }
}

template <typename T>
void check_starts() {
  for (const int64_t pixels : {1, 4, 6, 105, 768}) check_start<T>({3, pixels, pixels, 1});
  check_start<T>({3, 105, 35, 3});  // channels_last
  check_start<T>({0, 105, 105, 1});
}

int main() {
  check_steps<float, float>();
  check_steps<float, half_bits>();
  check_steps<float, bfloat_bits>();
  check_steps<half_bits, half_bits>();
  check_steps<half_bits, bfloat_bits>();
  check_steps<bfloat_bits, half_bits>();
  check_steps<bfloat_bits, bfloat_bits>();
  check_starts<float>();
  check_starts<half_bits>();
  check_starts<bfloat_bits>();
  return finish();
}
