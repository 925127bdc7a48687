// random_start.cu against the element math of random_start.h: bit for bit for linf, closely for normal numbers.
#include "check.h"
#include "kernels/random_start.h"

using namespace bat_fast;

constexpr StartKey kKey = {0x123456789abcdefull, 7};
constexpr StartLimits<float> kLimits = {0.0314f, 0.0f, 1.0f};

template <typename T>
void check_start(ImageLayout layout, int skip = 1) {
  const auto clean = random_array<T>(layout.samples * layout.pixels, [](int64_t) { return uniform(); });
  Array<int64_t> index(layout.samples);
  for (int64_t n = 0; n < layout.samples; ++n) index[n] = n % 2 ? n : (1ll << 40) + 3 * n;
  Array<T> out(clean.size(), skip);
  linf_start_cuda(out.data(), clean.data(), index.data(), layout, kKey, kLimits, nullptr);
  const float unit = kLimits.eps / 16777216.0f;
  for (int64_t n = 0; n < layout.samples; ++n) {
    for (int64_t p = 0; p < layout.pixels; ++p) {
      const int64_t at = n * layout.pixels + layout.offset(p);
      const Philox r = philox(kKey.seed, static_cast<uint32_t>(p / 4), kKey.draw, static_cast<uint64_t>(index[n]));
      const float want = linf_start(load(clean[at]), r.word[p % 4], unit, kLimits.lo, kLimits.hi);
      expect_same_bits("start", at, out[at], store<T>(want));
    }
  }

  const auto wide = widened<double>(clean);
  Array<double> want(clean.size());
  for (const bool ball : {false, true}) {
    normal_start_cuda(out.data(), clean.data(), index.data(), layout, kKey, ball, {0.5f, 0.0f, 1.0f}, nullptr);
    normal_start_cpu(want.data(), wide.data(), index.data(), layout, 0, layout.samples, kKey, ball, {0.5, 0.0, 1.0});
    const double tolerance = sizeof(T) == 4 ? 5e-6 : 5e-3;
    for (int64_t i = 0; i < out.size(); ++i) expect_close("normal start", i, load(out[i]), want[i], tolerance);
  }
}

template <typename T>
void check_starts() {
  for (const int64_t pixels : {1, 4, 6, 105, 2000}) check_start<T>({3, pixels, pixels, 1});
  check_start<T>({2, 2000, 2000, 1}, 0);
  check_start<T>({3, 105, 35, 3});  // channels_last
  for (const int skip : {0, 1}) check_start<T>({3, 240, 80, 3}, skip);
  check_start<T>({2, 80, 40, 2}, 0);
  check_start<T>({0, 105, 105, 1});
}

int main() {
  check_starts<float>();
  check_starts<half_bits>();
  check_starts<bfloat_bits>();
  return finish();
}
