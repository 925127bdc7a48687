// Where an attack starts: random numbers keyed by (seed, sample, draw, pixel). Element math shared by CPU and CUDA, CPU
// loops, CUDA launchers.
#pragma once

#include "kernels/philox.h"

namespace bat_fast {

template <typename T>
struct StartLimits {
  T eps, lo, hi;
};

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

// Two normal numbers from two words (Box & Muller 1958).
template <typename T>
BAT_HD void normal_pair(uint32_t a, uint32_t b, T* out) {
  const T unit = T(1.0 / 16777216.0);
  const T radius = std::sqrt(T(-2) * std::log(static_cast<T>((a >> 8) + 1) * unit));
  const T angle = T(6.283185307179586) * (static_cast<T>(b >> 8) * unit);
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

// The distance from the image in the l2 ball, in [0, 1): the block of numbers after those of the pixels.
template <typename T>
BAT_HD T l2_distance(uint64_t sample, const ImageLayout& layout, const StartKey& key) {
  const Philox r = philox(key.seed, static_cast<uint32_t>(layout.blocks()), key.draw, sample);
  return static_cast<T>(r.word[0] >> 8) * T(1.0 / 16777216.0);
}

// Calls visit(at, number_of_pixel) for the four pixels of block b of an image.
template <typename T, typename Visit>
BAT_HD void each_normal(const ImageLayout& layout, const StartKey& key, uint64_t sample, int64_t b, Visit visit) {
  const Philox r = philox(key.seed, static_cast<uint32_t>(b), key.draw, sample);
  T normal[4];
  normal_pair(r.word[0], r.word[1], normal);
  normal_pair(r.word[2], r.word[3], normal + 2);
  for (int k = 0; k < 4; ++k) {
    if (4 * b + k < layout.pixels) visit(layout.offset(4 * b + k), normal[k]);
  }
}

template <typename T>
BAT_CLONES void linf_start_cpu(T* __restrict__ out, const T* __restrict__ clean, const int64_t* index,
                               ImageLayout layout, int64_t begin, int64_t end, StartKey key, StartLimits<T> s) {
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

// x + eps u n / ||n|| (ball), or x + eps n (gaussian), cut to [lo, hi].
template <typename T>
void normal_start_cpu(T* out, const T* clean, const int64_t* index, ImageLayout layout, int64_t begin, int64_t end,
                      StartKey key, bool ball, StartLimits<T> s) {
  for (int64_t n = begin; n < end; ++n) {
    const T* image = clean + n * layout.pixels;
    T *start = out + n * layout.pixels, square = 0;
    const uint64_t sample = static_cast<uint64_t>(index[n]);
    for (int64_t b = 0; b < layout.blocks(); ++b) {
      each_normal<T>(layout, key, sample, b, [&](int64_t at, T normal) {
        start[at] = normal;
        square += normal * normal;
      });
    }
    const T scale = ball ? s.eps * l2_distance<T>(sample, layout, key) / std::sqrt(square) : s.eps;
    for (int64_t p = 0; p < layout.pixels; ++p) {
      start[p] = minimum(maximum(image[p] + scale * start[p], s.lo), s.hi);
    }
  }
}

// CUDA launchers, in random_start.cu; `stream` is a cudaStream_t.
template <typename T>
void linf_start_cuda(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key,
                     StartLimits<float> s, void* stream);
template <typename T>
void normal_start_cuda(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key, bool ball,
                       StartLimits<float> s, void* stream);

}  // namespace bat_fast
