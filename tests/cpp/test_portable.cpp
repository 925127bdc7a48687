// portable.h and philox.h: 16-bit floats, the exponential, the logarithm and the random generator.
#include "check.h"
#include "kernels/philox.h"

using namespace bat_fast;

// Published known answers of Philox4x32-10 (Random123, kat_vectors).
void check_philox() {
  const auto check = [](Philox got, std::initializer_list<uint32_t> want) {
    for (int i = 0; i < 4; ++i) expect(got.word[i] == want.begin()[i], "philox", i);
  };
  check(philox(0, 0, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  check(philox(~0ull, ~0u, ~0u, ~0ull), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  check(philox(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x0370734413198a2e),
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

// Every 16-bit pattern survives the way to float32 and back; what lies between two of them goes to the nearest.
template <typename T>
void check_16_bits(uint16_t infinity) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const T v = {static_cast<uint16_t>(bits)};
    if ((bits & 0x7fff) > infinity) {
      expect(std::isnan(load(v)) && std::isnan(load(store<T>(load(v)))), "NaN stays", bits);
    } else {
      expect(store<T>(load(v)).bits == bits, "round trip", bits);
    }
    if ((bits & 0x7fff) + 1u >= infinity) continue;
    const T next = {static_cast<uint16_t>(bits + 1)};
    const float middle = 0.5f * load(v) + 0.5f * load(next);
    expect(store<T>(middle).bits == (bits % 2 ? next : v).bits, "ties go to even", bits);
    expect(store<T>(std::nextafter(middle, load(next))).bits == next.bits, "above the middle", bits);
  }
}

void check_exponential() {
  double worst = 0;
  for (float x = -87.3f; x <= 88.0f; x += 0.00137f) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::fmax(worst, std::abs(fast_exp(x) - want) / want);
  }
  expect_close("worst relative error of fast_exp, in 2^-23", 0, worst * 8388608, 0, 1.2);
  expect(fast_exp(0.0f) == 1.0f, "exp(0)");
  expect(fast_exp(-INFINITY) == 0.0f, "exp(-inf)");
  expect(fast_exp(-1e30f) == 0.0f, "exp of what is far below");
  expect(std::isnan(fast_exp(NAN)), "exp(nan)");
}

void check_logarithm() {
  double worst = 0;
  for (float x = 1.2e-38f; x < 8e37f; x *= 1.00013f) {
    const double want = std::log(static_cast<double>(x));
    worst = std::fmax(worst, std::abs(fast_log(x) - want) / std::fmax(std::abs(want), 1e-3));
  }
  expect_close("worst relative error of fast_log, in 2^-23", 0, worst * 8388608, 0, 1.2);
  expect(fast_log(1.0f) == 0.0f, "log(1)");
  expect(std::isnan(fast_log(NAN)), "log(nan)");
}

int main() {
  check_philox();
  check_16_bits<half_bits>(0x7c00);
  check_16_bits<bfloat_bits>(0x7f80);
  check_exponential();
  check_logarithm();
  return finish();
}
