// What CPU and CUDA share: decorations, number types, fast exponentials and logarithms.
#pragma once

#include <cmath>
#include <cstdint>
#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

// BAT_HD: element math of both devices. BAT_INLINE: for lambdas inside BAT_CLONES, where one left out of line would be
// compiled for the baseline processor only. BAT_CLONES: one binary, the speed of the processor at hand; the loop is
// compiled for baseline x86-64, AVX2 and AVX-512, and the loader picks. Sanitizers do not understand the dispatch and
// need no speed; their checks, inlined everywhere, would take minutes to compile.
#if defined(__CUDACC__)
#define BAT_HD __host__ __device__ __forceinline__
#define BAT_INLINE
#define BAT_CLONES
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BAT_HD inline
#define BAT_INLINE
#define BAT_CLONES
#else
#define BAT_HD inline __attribute__((always_inline))
#define BAT_INLINE __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BAT_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define BAT_CLONES
#endif
#endif

namespace bat_fast {

// The same bits as another type of the same size (std::bit_cast is not callable on a device).
template <typename To, typename From>
BAT_HD To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

// 16-bit floats as stored. Arithmetic is always in float32.
struct half_bits {
  uint16_t bits;
};
struct bfloat_bits {
  uint16_t bits;
};

// The type that a stored type computes in: double for double, else float.
template <typename T>
struct compute {
  using type = float;
};
template <>
struct compute<double> {
  using type = double;
};
template <typename T>
using compute_t = typename compute<T>::type;

BAT_HD float load(float v) { return v; }
BAT_HD double load(double v) { return v; }
BAT_HD float load(bfloat_bits v) { return bits_as<float>(static_cast<uint32_t>(v.bits) << 16); }
BAT_HD float load(half_bits v) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(v.bits));
#else
  return static_cast<float>(bits_as<_Float16>(v.bits));
#endif
}

template <typename T>
BAT_HD T store(compute_t<T> v) {
  return v;
}
template <>
BAT_HD bfloat_bits store<bfloat_bits>(float v) {
  const uint32_t u = bits_as<uint32_t>(v);
  if (v != v) return {static_cast<uint16_t>(u >> 16 | 0x40)};          // a quiet NaN
  return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};  // nearest, ties to even
}
template <>
BAT_HD half_bits store<half_bits>(float v) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(v))};
#else
  return {bits_as<uint16_t>(static_cast<_Float16>(v))};
#endif
}

template <typename T>
BAT_HD T minimum(T a, T b) {  // NaN in `a` stays
  return b < a ? b : a;
}
template <typename T>
BAT_HD T maximum(T a, T b) {
  return b > a ? b : a;
}

// exp(x) for x <= 88, to about 1 unit in the last place: Cody-Waite reduction and a degree-6 polynomial, which
// vectorises, where libm's call does not. Results below the normal range are 0; NaN stays.
BAT_HD float fast_exp(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  const float shifted = __builtin_fmaf(x, 1.44269504f, 12582912.0f);  // 1.5 * 2^23: rounds to an integer
  const float n = shifted - 12582912.0f;
  float r = __builtin_fmaf(n, -0.693359375f, x);
  r = __builtin_fmaf(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = __builtin_fmaf(p, r, 1.3981999507e-3f);
  p = __builtin_fmaf(p, r, 8.3334519073e-3f);
  p = __builtin_fmaf(p, r, 4.1665795894e-2f);
  p = __builtin_fmaf(p, r, 1.6666665459e-1f);
  p = __builtin_fmaf(p, r, 5.0000001201e-1f);
  p = __builtin_fmaf(p, r * r, r + 1.0f);
  const uint32_t exponent = bits_as<uint32_t>(shifted) - 0x4b400000u + 127u;
  const float power = bits_as<float>(exponent << 23);
  return x < -87.33f ? 0.0f : p * power;
#endif
}
BAT_HD double fast_exp(double x) { return exp(x); }

// log(1 + u), and 1 - log(1 + u) / u, which is the share of u that the logarithm takes away: for small u it is u / 2,
// and a difference would cancel.
template <typename T>
struct Log1p {
  T log, deficit;
};

// 1 - log(1 + t) / t for 1 + t in [sqrt(1/2), sqrt(2)): the polynomial of Cephes' logf.
BAT_HD float log_deficit(float t) {
  float p = 7.0376836292e-2f;
  p = fmaf(p, t, -1.1514610310e-1f);
  p = fmaf(p, t, 1.1676998740e-1f);
  p = fmaf(p, t, -1.2420140846e-1f);
  p = fmaf(p, t, 1.4249322787e-1f);
  p = fmaf(p, t, -1.6668057665e-1f);
  p = fmaf(p, t, 2.0000714765e-1f);
  p = fmaf(p, t, -2.4999993993e-1f);
  p = fmaf(p, t, 3.3333331174e-1f);
  return t * fmaf(-t, p, 0.5f);
}
// log(2^n (1 + t)), the small terms first.
BAT_HD float log_of_parts(int32_t n, float t, float deficit) {
  const float power = static_cast<float>(n);
  return fmaf(power, 0.693359375f, t + fmaf(-t, deficit, power * -2.12194440e-4f));
}

// For 0 <= u <= 2^126, to about 2 units in the last place: 1 + u = 2^n (1 + t). Vectorises, and is the same code on a
// GPU. NaN stays.
BAT_HD Log1p<float> fast_log1p(float u) {
  const int32_t n = (bits_as<int32_t>(1.0f + u) - 0x3f3504f3) >> 23;
  const float scale = bits_as<float>((127 - n) << 23);  // 2^-n
  const float t = fmaf(u, scale, scale - 1.0f);         // exactly u where n = 0
  const float deficit = log_deficit(t), log = log_of_parts(n, t, deficit);
  return {log, n == 0 ? deficit : 1.0f - log / u};
}
// log(x) for x in [2^-126, 2^126], likewise.
BAT_HD float fast_log(float x) {
  const int32_t n = (bits_as<int32_t>(x) - 0x3f3504f3) >> 23;
  const float t = fmaf(x, bits_as<float>((127 - n) << 23), -1.0f);
  return log_of_parts(n, t, log_deficit(t));
}
BAT_HD double fast_log(double x) { return log(x); }
BAT_HD Log1p<double> fast_log1p(double u) {
  const double log = log1p(u);
  double series = 0;  // of the deficit, to rounding for u < 1/16
  for (int k = 14; k >= 2; --k) series = 1.0 / k - u * series;
  return {log, u < 0.0625 ? u * series : 1.0 - log / u};
}

// log(z) - y for z = 1 + y > 0, without losing digits where y is small: there the logarithm's own leading term is y.
// The polynomial is fdlibm's; error about 1 unit in the last place. Vectorises, where libm's call does not.
BAT_HD double log_minus(double z, double y) {
  const uint64_t bits = bits_as<uint64_t>(z), shifted = bits + (uint64_t{0x3ff00000 - 0x3fe6a09e} << 32);
  const uint64_t exponent = shifted >> 52;  // + 1023
  const double k = bits_as<double>(exponent | uint64_t{0x4330000000000000}) - (4503599627370496.0 + 1023.0);
  const double mantissa = bits_as<double>(bits - ((exponent - 1023) << 52));  // in [sqrt(1/2), sqrt(2))
  const double f = exponent == 1023 ? y : mantissa - 1.0;
  const double s = f / (2.0 + f), s2 = s * s, half = 0.5 * f * f;
  double p = 1.479819860511658591e-01;
  p = p * s2 + 1.531383769920937332e-01;
  p = p * s2 + 1.818357216161805012e-01;
  p = p * s2 + 2.222219843214978396e-01;
  p = p * s2 + 2.857142874366239149e-01;
  p = p * s2 + 3.999999999940941908e-01;
  p = p * s2 + 6.666666666666735130e-01;
  const double tail = (s * (half + p * s2) + k * 1.90821492927058770002e-10) - half;
  return k * 6.93147180369123816490e-01 + (tail + (f - y));
}

// The double that is `step` places above v >= 0.
BAT_HD double neighbour(double v, int64_t step) {
  return bits_as<double>(bits_as<uint64_t>(v) + static_cast<uint64_t>(step));
}

}  // namespace bat_fast
