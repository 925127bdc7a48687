// Perturbations: the PGD steps. Element math shared by CPU and CUDA, CPU loops, CUDA launchers.
#pragma once

#include "kernels/portable.h"

namespace bat_fast {

// What a step needs beside the arrays. Each limit is rounded to the image's type once.
template <typename T>
struct StepLimits {
  T step_size, eps, lo, hi;
};

// sign(g) with sign(0) = sign(nan) = 0, for every stored type of a gradient.
template <typename T>
BAT_HD int sign_of(T g) {
  return (g > T(0)) - (g < T(0));
}
BAT_HD int sign_of_bits(uint16_t bits, uint16_t infinity) {
  const uint16_t magnitude = bits & 0x7fff;
  const int nonzero = (magnitude != 0) & (magnitude <= infinity);
  return nonzero * (1 - 2 * (bits >> 15));
}
BAT_HD int sign_of(half_bits g) { return sign_of_bits(g.bits, 0x7c00); }
BAT_HD int sign_of(bfloat_bits g) { return sign_of_bits(g.bits, 0x7f80); }

// clip(clip(adv + step * sign(g), clean - eps, clean + eps), lo, hi)
template <typename T, typename G>
BAT_HD T linf_step(T adv, G grad, T clean, const StepLimits<T>& s) {
  T v = adv + s.step_size * static_cast<T>(sign_of(grad));
  v = minimum(maximum(v, clean - s.eps), clean + s.eps);
  return minimum(maximum(v, s.lo), s.hi);
}

template <typename T, typename G>
BAT_CLONES void linf_step_cpu(T* __restrict__ adv, const G* __restrict__ grad, const T* __restrict__ clean,
                              int64_t begin, int64_t end, StepLimits<T> s) {
  for (int64_t i = begin; i < end; ++i) adv[i] = linf_step(adv[i], grad[i], clean[i], s);
}

// --- l2 -----------------------------------------------------------------------------------------------------------

// v = adv + step g / ||g|| - clean;  v <- v min(1, eps / ||v||);  clip(clean + v, lo, hi).
// ||v|| follows from three sums over the sample, so that one pass over memory is enough for both norms.
template <typename T>
struct L2Sums {
  T gg, dg, dd;  // of g g, d g and d d, with d = adv - clean
  T unit;        // what g is counted in: 1, or its largest entry where squares would leave the range of the type
};

template <typename T>
struct L2Factors {
  T keep, move;  // v = keep * d + move * g
};

// Whether the squares of a gradient add up without loss. Those of NaN do not.
template <typename T>
BAT_HD bool exact_squares(T gg) {
  constexpr T most = sizeof(T) == sizeof(double) ? T(1e200) : T(1e20);
  return gg >= T(1) / most && gg <= most;
}

template <typename T>
BAT_HD L2Factors<T> l2_factors(const L2Sums<T>& sums, const StepLimits<T>& s) {
  const bool zero = sums.gg == T(0);
  const T move = zero ? T(0) : s.step_size / std::sqrt(sums.gg);
  const T square = sums.dd + T(2) * move * sums.dg + (zero ? T(0) : s.step_size * s.step_size);
  const T length = std::sqrt(maximum(square, T(0)));
  const T shrink = length > s.eps ? s.eps / length : T(1);
  return {shrink, shrink * move};
}

template <typename T>
BAT_HD T l2_moved(T d, T grad, T clean, const L2Factors<T>& f, const StepLimits<T>& s) {
  return minimum(maximum(clean + (f.keep * d + f.move * grad), s.lo), s.hi);
}

// The step of one sample; gradient(p) is its gradient at a pixel, in units of `unit`.
template <typename T, typename Gradient>
BAT_HD L2Sums<T> l2_sums(const T* adv, const T* clean, int64_t pixels, T unit, Gradient gradient) {
  T gg = 0, dg = 0, dd = 0;
#pragma omp simd reduction(+ : gg, dg, dd)
  for (int64_t p = 0; p < pixels; ++p) {
    const T v = gradient(p), d = adv[p] - clean[p];
    gg += v * v;
    dg += d * v;
    dd += d * d;
  }
  return {gg, dg, dd, unit};
}
template <typename T, typename Gradient>
BAT_HD void l2_move(T* adv, const T* clean, int64_t pixels, const L2Factors<T>& f, const StepLimits<T>& s,
                    Gradient gradient) {
  for (int64_t p = 0; p < pixels; ++p) adv[p] = l2_moved(adv[p] - clean[p], gradient(p), clean[p], f, s);
}

template <typename T, typename G>
BAT_CLONES void l2_step_cpu(T* __restrict__ adv, const G* __restrict__ grad, const T* __restrict__ clean,
                            int64_t pixels, int64_t begin, int64_t end, StepLimits<T> s) {
  for (int64_t n = begin; n < end; ++n) {
    T* a = adv + n * pixels;
    const G* g = grad + n * pixels;
    const T* x = clean + n * pixels;
    const auto plain = [&](int64_t p) BAT_INLINE { return static_cast<T>(load(g[p])); };
    const L2Sums<T> sums = l2_sums(a, x, pixels, T(1), plain);
    T unit = 0;
    if (!exact_squares(sums.gg)) {
      for (int64_t p = 0; p < pixels; ++p) unit = maximum(unit, std::fabs(plain(p)));
    }
    if (unit > T(0)) {
      const auto scaled = [&](int64_t p) BAT_INLINE { return plain(p) / unit; };
      l2_move(a, x, pixels, l2_factors(l2_sums(a, x, pixels, unit, scaled), s), s, scaled);
    } else {
      l2_move(a, x, pixels, l2_factors(sums, s), s, plain);
    }
  }
}

// CUDA launchers, in perturb.cu. Arrays are dense and share one layout; `stream` is a cudaStream_t.
template <typename T, typename G>
void linf_step_cuda(T* adv, const G* grad, const T* clean, int64_t count, StepLimits<float> s, void* stream);
// `scratch` holds l2_scratch(samples, pixels) floats, for samples that do not fit on chip.
int64_t l2_scratch(int64_t samples, int64_t pixels);
template <typename T, typename G>
void l2_step_cuda(T* adv, const G* grad, const T* clean, int64_t samples, int64_t pixels, float* scratch,
                  StepLimits<float> s, void* stream);

}  // namespace bat_fast
