// Batches from a resident set of uint8 images: gather, crop, flip and scale. Element math shared by CPU and CUDA, CPU
// loops, CUDA launcher.
#pragma once

#include <cstring>

#include "kernels/philox.h"

namespace bat_fast {

// [count, height, width, channels], contiguous. One image is smaller than 2^30, so that a GPU computes the places of
// its pixels in 32 bits, which halves the arithmetic.
struct ImageSet {
  const uint8_t* data;
  int64_t count;
  int32_t height, width, channels;
  BAT_HD int32_t pixels() const { return height * width * channels; }
  BAT_HD bool holds(int64_t row) const { return row >= 0 && row < count; }
};

struct CropRule {
  uint64_t seed;
  uint32_t epoch;
  int32_t pad;
  bool reflect, flip;
};

// Where the corner of the crop lies in the image (from -pad to pad), and whether the crop is mirrored.
struct Crop {
  int32_t row, column;
  bool mirrored;
};

constexpr uint32_t kCropDomain = 0x43524F50;  // first counter word: no block of random_start comes so far

// Uniform in [0, 2 pad] to within 2^-32 of each probability.
BAT_HD int32_t crop_offset(uint32_t word, int32_t pad) {
  return static_cast<int32_t>(static_cast<uint64_t>(word) * static_cast<uint32_t>(2 * pad + 1) >> 32);
}

BAT_HD Crop draw_crop(const CropRule& rule, int64_t id) {
  const Philox r = philox(rule.seed, kCropDomain, rule.epoch, static_cast<uint64_t>(id));
  return {crop_offset(r.word[0], rule.pad) - rule.pad, crop_offset(r.word[1], rule.pad) - rule.pad,
          rule.flip && r.word[2] >> 31 != 0};
}

// The row (or column) of the image that a row of the crop shows; -1 for the black border.
BAT_HD int32_t source_line(int32_t at, int32_t size, bool reflect) {
  if (at >= 0 && at < size) return at;
  if (!reflect) return -1;
  return at < 0 ? -at : 2 * (size - 1) - at;
}

// v / 255 to the last bit for every byte, at a third of the cost of a division on a GPU.
BAT_HD float over_255(float v) {
  const float q = v * (1.0f / 255.0f);
  return fmaf(fmaf(q, -255.0f, v), 1.0f / 255.0f, q);
}

template <typename T>
BAT_HD T pixel_value(uint8_t v) {
#if defined(__CUDA_ARCH__)
  return store<T>(over_255(v));
#else
  return store<T>(static_cast<float>(v) / 255.0f);
#endif
}

// A pixel of the crop as a byte.
BAT_HD uint8_t crop_pixel(const ImageSet& set, const uint8_t* image, const Crop& crop, bool reflect, int32_t y,
                          int32_t x, int32_t channel) {
  const int32_t row = source_line(y + crop.row, set.height, reflect);
  const int32_t at = crop.mirrored ? set.width - 1 - x : x;
  const int32_t column = source_line(at + crop.column, set.width, reflect);
  return row < 0 || column < 0 ? 0 : image[(row * set.width + column) * set.channels + channel];
}

// Channels is the number of channels where the compiler may know it, else 0.
template <int Channels>
BAT_HD void mirror_pixels(const uint8_t* from, uint8_t* to, int32_t width, int32_t channels) {
  const int32_t n = Channels ? Channels : channels;
  for (int32_t x = 0; x < width; ++x) {
    for (int32_t c = 0; c < n; ++c) to[x * n + c] = from[(width - 1 - x) * n + c];
  }
}

// One row of pixels to planes. With the channels innermost and known, the loop becomes wide loads and shuffles, four
// times faster than a plane at a time.
template <int Channels, typename T>
BAT_HD void write_planes(const uint8_t* __restrict__ line, T* __restrict__ out, int32_t width, int32_t channels,
                         int64_t plane) {
  if constexpr (Channels > 0) {
    for (int32_t x = 0; x < width; ++x) {
      for (int c = 0; c < Channels; ++c) out[c * plane + x] = pixel_value<T>(line[x * Channels + c]);
    }
  } else {
    for (int32_t c = 0; c < channels; ++c) {
      for (int32_t x = 0; x < width; ++x) out[c * plane + x] = pixel_value<T>(line[x * channels + c]);
    }
  }
}

// One row of the crop, as bytes: inside the image a copy or a mirrored copy. A black border is there already, as
// nothing else is ever written to it; a reflected one comes pixel by pixel.
template <int Channels>
BAT_HD const uint8_t* crop_line(const ImageSet& set, const uint8_t* image, const Crop& crop, bool reflect, int32_t y,
                                uint8_t* line) {
  const int32_t n = Channels ? Channels : set.channels, width = set.width;
  const int32_t row = source_line(y + crop.row, set.height, reflect);
  if (row < 0) {
    std::memset(line, 0, static_cast<size_t>(width * n));
    return line;
  }
  const uint8_t* source = image + row * width * n;
  if (crop.column == 0 && !crop.mirrored) return source;
  const int32_t shift = crop.column < 0 ? -crop.column : crop.column;
  const int32_t inside = shift < width ? width - shift : 0;
  const int32_t from = crop.column > 0 ? crop.column : 0;
  const bool border_first = (crop.column < 0) != crop.mirrored;
  const int32_t first = border_first ? width - inside : 0;
  if (crop.mirrored) {
    mirror_pixels<Channels>(source + from * n, line + first * n, inside, n);
  } else {
    std::memcpy(line + first * n, source + from * n, static_cast<size_t>(inside * n));
  }
  if (!reflect) return line;
  const int32_t border = border_first ? 0 : inside;
  for (int32_t x = border; x < border + width - inside; ++x) {
    for (int32_t c = 0; c < n; ++c) line[x * n + c] = crop_pixel(set, image, crop, reflect, y, x, c);
  }
  return line;
}

// Samples begin..end of a batch; `line` holds a row of pixels. A row number outside the set gives NaN.
template <int Channels, typename T>
BAT_CLONES void crop_flip_cpu(ImageSet set, const int64_t* index, const int64_t* ids, T* __restrict__ out,
                              bool channels_last, CropRule rule, uint8_t* __restrict__ line, int64_t begin,
                              int64_t end) {
  const int32_t row_size = set.width * set.channels;
  for (int64_t n = begin; n < end; ++n) {
    T* to = out + n * set.pixels();
    if (!set.holds(index[n])) {
      for (int32_t i = 0; i < set.pixels(); ++i) to[i] = store<T>(compute_t<T>(NAN));
      continue;
    }
    const uint8_t* image = set.data + index[n] * set.pixels();
    const Crop crop = draw_crop(rule, ids[n]);
    std::memset(line, 0, static_cast<size_t>(row_size));
    for (int32_t y = 0; y < set.height; ++y) {
      const uint8_t* pixels = crop_line<Channels>(set, image, crop, rule.reflect, y, line);
      if (channels_last) {
        for (int32_t i = 0; i < row_size; ++i) to[y * row_size + i] = pixel_value<T>(pixels[i]);
      } else {
        write_planes<Channels>(pixels, to + y * set.width, set.width, set.channels, set.height * set.width);
      }
    }
  }
}

// CUDA launcher, in augment.cu; `stream` is a cudaStream_t.
template <typename T>
void crop_flip_cuda(ImageSet set, const int64_t* index, const int64_t* ids, int64_t samples, T* out, bool channels_last,
                    CropRule rule, void* stream);

}  // namespace bat_fast
