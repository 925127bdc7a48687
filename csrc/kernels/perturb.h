// Perturbations: the PGD step and the random start. Element math for both twins, CPU loops, CUDA launchers.
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

// A batch of images: pixel p of sample n lies at n * pixels + offset(p). The random numbers are keyed by the
// logical pixel (channel, row, column), so the memory format does not change them.
struct ImageLayout {
  int64_t samples, pixels;
  int64_t plane;     // pixels of one channel
  int64_t channels;  // 1 for a contiguous batch
  BAT_HD int64_t offset(int64_t p) const { return channels == 1 ? p : p % plane * channels + p / plane; }
  BAT_HD int64_t blocks() const { return (pixels + 3) / 4; }  // of four random numbers
};

struct StartKey {
  uint64_t seed;
  uint32_t draw;
};

// Uniform in (-1, 1) as an odd integer over 2^24: exact in float32, and never an end of the range.
BAT_HD int32_t odd_24(uint32_t word) { return static_cast<int32_t>(word >> 8) * 2 + 1 - (1 << 24); }

template <typename T>
BAT_HD T linf_start(T clean, uint32_t word, T unit, T lo, T hi) {
  const T v = clean + static_cast<T>(odd_24(word)) * unit;  // unit = eps / 2^24
  return minimum(maximum(v, lo), hi);
}

template <typename T>
BAT_CLONES void linf_start_cpu(T* __restrict__ out, const T* __restrict__ clean, const int64_t* index,
                               ImageLayout layout, int64_t begin, int64_t end, StartKey key, StepLimits<T> s) {
  const T unit = s.eps * T(1.0 / 16777216.0);
  for (int64_t n = begin; n < end; ++n) {
    const T* image = clean + n * layout.pixels;
    T* start = out + n * layout.pixels;
    const uint64_t sample = static_cast<uint64_t>(index[n]);
    const int64_t whole = layout.channels == 1 ? layout.pixels / 4 : 0;
    for (int64_t b = 0; b < whole; ++b) {
      const Philox r = philox(key.seed, static_cast<uint32_t>(b), key.draw, sample);
      for (int j = 0; j < 4; ++j) start[4 * b + j] = linf_start(image[4 * b + j], r.word[j], unit, s.lo, s.hi);
    }
    for (int64_t b = whole; b < layout.blocks(); ++b) {
      const Philox r = philox(key.seed, static_cast<uint32_t>(b), key.draw, sample);
      for (int64_t p = 4 * b; p < layout.pixels && p < 4 * b + 4; ++p) {
        const int64_t at = layout.offset(p);
        start[at] = linf_start(image[at], r.word[p - 4 * b], unit, s.lo, s.hi);
      }
    }
  }
}

// CUDA launchers, in perturb.cu. Arrays are dense and share one layout; `stream` is a cudaStream_t.
template <typename T, typename G>
void linf_step_cuda(T* adv, const G* grad, const T* clean, int64_t count, StepLimits<float> s, void* stream);
template <typename T>
void linf_start_cuda(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key,
                     StepLimits<float> s, void* stream);

}  // namespace bat_fast
