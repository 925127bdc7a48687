// Convolutions (a linear layer is one with a window of a single pixel) of 32 images at a time. Values lie as
// [pixel][channel][lane] with an image in each lane, so that a weight, read once, is multiplied
// with 32 images, whatever their size: with 16 the loads of weights, not the multiplications, took the time.
#pragma once

#include <algorithm>

#include "kernels/portable.h"

namespace bat_fast {

constexpr int64_t kImageLanes = 32;

// A map of values, and the window that slides over it.
struct Map {
  int64_t height, width, channels;
  BAT_HD int64_t pixels() const { return height * width; }
  BAT_HD int64_t size() const { return height * width * channels; }
};
struct Window {
  int64_t height, width, stride_y, stride_x, pad_y, pad_x;
};

// Weights lie as [out][window pixel][in]. The accumulators of a tile are neighbours in `out` in the forward pass, and
// neighbours in `in` in the backward pass.
enum class Pass { kForward, kBackward };

// acc[j] += sum_k weight[k, j] in[k], for `length` contiguous entries k and J columns j; `row` is the stride of `out`
// in the weights.
template <Pass pass, typename T, int J>
BAT_HD void add_run(const T* in, const T* weight, int64_t row, int64_t length, T (&acc)[J][kImageLanes]) {
  const int64_t of_k = pass == Pass::kForward ? 1 : row, of_j = pass == Pass::kForward ? row : 1;
  for (int64_t k = 0; k < length; ++k) {
    const T* values = in + k * kImageLanes;
#pragma GCC unroll 8
    for (int j = 0; j < J; ++j) {
#pragma omp simd
      for (int lane = 0; lane < kImageLanes; ++lane) {
        acc[j][lane] = std::fma(weight[k * of_k + j * of_j], values[lane], acc[j][lane]);
      }
    }
  }
}

// Calls run(offset into the map, offset into the window, pixels) for each row of pixels that the window at (y, x)
// covers: they are contiguous in both. Offsets are in pixels.
template <typename Run>
BAT_HD void covered_by(const Window& w, const Map& in, int64_t y, int64_t x, Run run) {
  const int64_t top = y * w.stride_y - w.pad_y, left = x * w.stride_x - w.pad_x;
  const int64_t first = left < 0 ? -left : 0, last = left + w.width > in.width ? in.width - left : w.width;
  if (first >= last) return;
  for (int64_t k = 0; k < w.height; ++k) {
    if (top + k >= 0 && top + k < in.height)
      run((top + k) * in.width + left + first, k * w.width + first, last - first);
  }
}

// The same for the windows that cover the pixel (y, x), one by one.
template <typename Run>
BAT_HD void covering(const Window& w, const Map& out, int64_t y, int64_t x, Run run) {
  for (int64_t k = 0; k < w.height; ++k) {
    const int64_t down = y + w.pad_y - k, row = down / w.stride_y;
    if (down < 0 || down % w.stride_y != 0 || row >= out.height) continue;
    for (int64_t m = 0; m < w.width; ++m) {
      const int64_t right = x + w.pad_x - m, column = right / w.stride_x;
      if (right < 0 || right % w.stride_x != 0 || column >= out.width) continue;
      run(row * out.width + column, k * w.width + m, 1);
    }
  }
}

// J of the `columns` of one pixel: to[j] = or += bias[j] + the sum over `runs`. `from` has `depth` channels; `weight`
// begins at the first of the columns.
template <Pass pass, typename T, int J, typename Runs>
BAT_HD void window_tile(const T* from, int64_t depth, const T* weight, int64_t row, const T* bias, int64_t columns,
                        bool add, T* to, Runs runs) {
  T acc[J][kImageLanes];
  for (int j = 0; j < J; ++j) {
    for (int lane = 0; lane < kImageLanes; ++lane) {
      acc[j][lane] = (bias == nullptr ? T(0) : bias[j]) + (add ? to[j * kImageLanes + lane] : T(0));
    }
  }
  runs([&](int64_t pixel, int64_t place, int64_t count) BAT_INLINE {
    const int64_t skipped = place * (pass == Pass::kForward ? depth : columns);
    add_run<pass, T, J>(from + pixel * depth * kImageLanes, weight + skipped, row, count * depth, acc);
  });
  for (int j = 0; j < J; ++j) {
    for (int lane = 0; lane < kImageLanes; ++lane) to[j * kImageLanes + lane] = acc[j][lane];
  }
}

// How many columns a tile may have: its accumulators stay in registers, 32 of AVX-512 and 16 of AVX2.
template <typename T>
int64_t widest_tile() {
#if defined(__x86_64__)
  const int64_t most = __builtin_cpu_supports("avx512f") ? 8 : 3;
#else
  const int64_t most = 4;
#endif
  return std::max<int64_t>(most * sizeof(float) / sizeof(T), 1);
}

// All columns of one pixel, in tiles as wide as may be and of like size: their independent accumulators hide the
// latency of a multiply-add.
template <Pass pass, typename T, typename Runs>
BAT_HD void window_pixel(const T* from, int64_t depth, const T* weight, int64_t row, const T* bias, int64_t columns,
                         int64_t widest, bool add, T* to, Runs runs) {
  for (int64_t c = 0; c < columns;) {
    const int64_t tiles = (columns - c + widest - 1) / widest, size = (columns - c + tiles - 1) / tiles;
    const auto tile = [&]<int J>() BAT_INLINE {
      window_tile<pass, T, J>(from, depth, weight + c * (pass == Pass::kForward ? row : 1), row,
                              bias == nullptr ? nullptr : bias + c, columns, add, to + c * kImageLanes, runs);
    };
    switch (size) {
      case 8:
        tile.template operator()<8>();
        break;
      case 7:
        tile.template operator()<7>();
        break;
      case 6:
        tile.template operator()<6>();
        break;
      case 5:
        tile.template operator()<5>();
        break;
      case 4:
        tile.template operator()<4>();
        break;
      case 3:
        tile.template operator()<3>();
        break;
      case 2:
        tile.template operator()<2>();
        break;
      default:
        tile.template operator()<1>();
    }
    c += size;
  }
}

// Forward: to = convolution(from) + bias; bias [out channels] or null.
template <typename T>
BAT_CLONES void window_cpu(const Window& w, const Map& in, const Map& out, const T* from, const T* weight,
                           const T* bias, T* to) {
  const int64_t row = w.height * w.width * in.channels, widest = widest_tile<T>();
  for (int64_t y = 0, pixel = 0; y < out.height; ++y) {
    for (int64_t x = 0; x < out.width; ++x, ++pixel) {
      window_pixel<Pass::kForward>(from, in.channels, weight, row, bias, out.channels, widest, false,
                                   to + pixel * out.channels * kImageLanes,
                                   [&](auto run) BAT_INLINE { covered_by(w, in, y, x, run); });
    }
  }
}

// Backward: `to`, the gradient at the input, is set to or incremented by the adjoint of `from`, the gradient at the
// output.
template <typename T>
BAT_CLONES void window_backward_cpu(const Window& w, const Map& in, const Map& out, const T* from, const T* weight,
                                    bool add, T* to) {
  const int64_t row = w.height * w.width * in.channels, widest = widest_tile<T>();
  const T* none = nullptr;
  for (int64_t y = 0, pixel = 0; y < in.height; ++y) {
    for (int64_t x = 0; x < in.width; ++x, ++pixel) {
      window_pixel<Pass::kBackward>(from, out.channels, weight, row, none, in.channels, widest, add,
                                    to + pixel * in.channels * kImageLanes,
                                    [&](auto run) BAT_INLINE { covering(w, out, y, x, run); });
    }
  }
}

}  // namespace bat_fast
