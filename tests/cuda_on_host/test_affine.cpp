// affine.cu against the element math of affine.h, bit for bit, in every layout.
#include "check.h"
#include "kernels/affine.h"

using namespace bat_fast;

double input(int64_t i) {
  constexpr double special[] = {0.0, -0.0, 1e4, -1e4, 1e-7};
  return i % 13 < 5 ? special[i % 13] : 3 * normal();
}

template <typename T>
void check(int64_t blocks, Channels channels, int skip) {
  using C = compute_t<T>;
  const int64_t count = blocks * channels.count * channels.inner;
  const auto x = Array<T>(random_array<T>(count, input), skip), other = random_array<T>(count, input);
  const auto scale = random_array<C>(channels.count, [](int64_t) { return normal(); });
  const auto shift = random_array<C>(channels.count, [](int64_t) { return normal(); });
  Array<T> y(count);
  for (const bool relu : {false, true}) {
    const Affine<T, bool> f = {x.data(), scale.data(), shift.data(), y.data(), relu};
    affine_cuda(f.x, f.scale, f.shift, f.out, count, channels, relu, nullptr);
    for (int64_t i = 0; i < count; ++i) {
      expect_same_bits("affine", i, y[i], f.value(x[i], f.channel(i / channels.inner % channels.count)));
    }
  }
  for (const bool more : {false, true}) {
    Array<T> sum(x, skip), grad(x, skip);
    const int64_t bytes = (count + 7) / 8;
    Array<uint8_t> bits(bytes);
    const AffineRelu<T> f = {sum.data(), more ? other.data() : nullptr, scale.data(), shift.data(), y.data(),
                             bits.data()};
    affine_relu_cuda(f, count, channels, nullptr);
    const AffineReluGrad<T> back = {grad.data(), bits.data(), scale.data(), more ? other.data() : nullptr};
    affine_relu_grad_cuda(back, count, channels, nullptr);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t c = i / channels.inner % channels.count;
      const T total = more ? f.sum(x[i], other[i]) : x[i];
      expect_same_bits("sum", i, sum[i], total);
      expect_same_bits("affine of a sum", i, y[i], f.value(total, scale[c], shift[c]));
      const bool passes = bits[i / 8] >> (i % 8) & 1;
      expect(passes == f.passes(y[i]), "bit", i);
      expect_same_bits("gradient by bits", i, grad[i], back.value(x[i], passes, scale[c], more ? other[i] : T{}));
    }
    if (count % 8 != 0) expect(bits[bytes - 1] >> (count % 8) == 0, "bits beyond the end", count);
  }
  for (int parts = 0; parts < 8; ++parts) {
    const bool relu = parts & 1, scaled = parts & 2, more = parts & 4;
    Array<T> grad(x, skip);
    const AffineGrad<T, bool, bool, bool> f = {
        grad.data(),
        relu ? y.data() : nullptr,
        scaled ? scale.data() : nullptr,
        more ? other.data() : nullptr,
        relu,
        scaled,
        more,
    };
    affine_grad_cuda(f.grad, f.y, f.scale, f.other, count, channels, nullptr);
    for (int64_t i = 0; i < count; ++i) {
      expect_same_bits("gradient", i, grad[i],
                       f.value(x[i], y[i], other[i], f.channel(i / channels.inner % channels.count)));
    }
  }
}

template <typename T>
void check_type() {
  for (const int64_t blocks : {0, 1, 3}) {
    check<T>(blocks, {16, 1}, 0);    // vectors of channels
    check<T>(blocks, {5, 1}, 0);     // vectors across pixels
    check<T>(blocks, {3, 64}, 0);    // vectors within a plane
    check<T>(blocks, {4, 7}, 0);     // vectors across planes
    check<T>(blocks, {1, 13}, 0);    // one channel
    check<T>(blocks, {16, 128}, 1);  // not aligned
  }
}

int main() {
  check_type<float>();
  check_type<double>();
  check_type<half_bits>();
  check_type<bfloat_bits>();
  return finish();
}
