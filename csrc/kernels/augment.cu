// A block works on rows of one crop: it brings their bytes into shared memory, cut and mirrored, and writes them from
// there, 16 bytes of the batch at a time, in either memory format. Odd widths go pixel by pixel.
#include "kernels/augment.h"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;

// The coordinates of an element of the output image, moved on in the order of memory.
struct Cursor {
  int y, x, channel;

  __device__ static Cursor at(int i, const ImageSet& set, bool channels_last) {
    if (channels_last) return {i / set.channels / set.width, i / set.channels % set.width, i % set.channels};
    return {i / set.width % set.height, i % set.width, i / set.width / set.height};
  }
  __device__ void next(const ImageSet& set, bool channels_last) {
    if (channels_last) {
      if (++channel == set.channels) channel = 0, ++x;
      if (x == set.width) x = 0, ++y;
    } else {
      if (++x == set.width) x = 0, ++y;
      if (y == set.height) y = 0, ++channel;
    }
  }
};

template <int Size, typename T>
__global__ void crop_flip_kernel(ImageSet set, const int64_t* index, const int64_t* ids, T* out, bool channels_last,
                                 CropRule rule, int blocks_per_image) {
  __shared__ Crop shared_crop;  // drawn once: ten rounds of Philox cost more than the rest of a thread's work
  const int64_t sample = blockIdx.x / blocks_per_image;
  if (threadIdx.x == 0) shared_crop = draw_crop(rule, ids[sample]);
  __syncthreads();
  const int first = static_cast<int>(blockIdx.x % blocks_per_image * kThreads + threadIdx.x) * Size;
  if (first >= set.pixels()) return;
  const Crop crop = shared_crop;
  const int64_t row = index[sample];
  const bool held = set.holds(row);
  const uint8_t* image = set.data + (held ? row : 0) * set.pixels();
  Cursor cursor = Cursor::at(first, set, channels_last);
  Vector<T, Size> v;
#pragma unroll
  for (int k = 0; k < Size; ++k) {
    // Size is 1 or divides the image, so every element of the vector is a pixel.
    v.at[k] = held ? pixel_value<T>(crop_pixel(set, image, crop, rule.reflect, cursor.y, cursor.x, cursor.channel))
                   : store<T>(NAN);
    cursor.next(set, channels_last);
  }
  *reinterpret_cast<Vector<T, Size>*>(out + sample * set.pixels() + first) = v;
}

// Rows that a block stages, and the bytes of one; none where the crop has to go pixel by pixel.
struct Staged {
  int rows, line;
  int bytes() const { return line * (static_cast<int>(sizeof(int32_t)) + rows); }
};

Staged staged_rows(const ImageSet& set, int size, bool channels_last) {
  constexpr int usual = 4096, most = 8192;  // bytes
  const int line = set.width * set.channels;
  if (line > most || (channels_last ? line : set.width) % size != 0) return {0, 0};
  const int rows = line < usual ? usual / line : 1, pieces = (set.height + rows - 1) / rows;
  return {(set.height + pieces - 1) / pieces, line};
}

template <int Size, typename T>
__global__ void crop_rows_kernel(ImageSet set, const int64_t* __restrict__ index, const int64_t* __restrict__ ids,
                                 T* __restrict__ out, bool channels_last, CropRule rule, Staged staged,
                                 int blocks_per_image) {
  extern __shared__ int32_t source[];  // of each byte of a line: where it lies in its row of the image, or -1
  __shared__ Crop shared_crop;
  auto* lines = reinterpret_cast<uint8_t*>(source + staged.line);
  const int64_t sample = blockIdx.x / blocks_per_image, row = index[sample];
  const int top = static_cast<int>(blockIdx.x % blocks_per_image) * staged.rows;
  const int rows = set.height - top < staged.rows ? set.height - top : staged.rows;
  const bool held = set.holds(row);  // the same for the whole block
  if (threadIdx.x == 0) shared_crop = draw_crop(rule, ids[sample]);
  __syncthreads();
  const Crop crop = shared_crop;
  for (int i = threadIdx.x; i < staged.line; i += kThreads) {
    const int x = i / set.channels, at = crop.mirrored ? set.width - 1 - x : x;
    const int column = source_line(at + crop.column, set.width, rule.reflect);
    source[i] = column < 0 ? -1 : column * set.channels + i % set.channels;
  }
  __syncthreads();
  const uint8_t* image = set.data + (held ? row : 0) * set.pixels();
  for (int r = threadIdx.x / 32; held && r < rows; r += kThreads / 32) {  // a warp for each row
    const int from = source_line(top + r + crop.row, set.height, rule.reflect);
    const uint8_t* line = image + from * staged.line;
#pragma unroll 4
    for (int i = threadIdx.x % 32; i < staged.line; i += 32) {
      lines[r * staged.line + i] = from < 0 || source[i] < 0 ? 0 : line[source[i]];
    }
  }
  __syncthreads();
  T* to = out + sample * set.pixels();
  const int across = set.width / Size, plane = rows * across;  // in vectors
  for (int i = threadIdx.x; i < rows * staged.line / Size; i += kThreads) {
    int from = i * Size, step = 1, at = top * staged.line + from;
    if (!channels_last) {
      const int channel = i / plane, r = (i - channel * plane) / across, x = (i - channel * plane - r * across) * Size;
      from = r * staged.line + x * set.channels + channel;
      step = set.channels;
      at = (channel * set.height + top + r) * set.width + x;
    }
    Vector<T, Size> v;
#pragma unroll
    for (int k = 0; k < Size; ++k) v.at[k] = held ? pixel_value<T>(lines[from + k * step]) : store<T>(NAN);
    *reinterpret_cast<Vector<T, Size>*>(to + at) = v;
  }
}

template <int Size, typename T>
void launch(ImageSet set, const int64_t* index, const int64_t* ids, int64_t samples, T* out, bool channels_last,
            CropRule rule, void* stream) {
  const int blocks_per_image = (set.pixels() / Size + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(samples * blocks_per_image);
  crop_flip_kernel<Size><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      set, index, ids, out, channels_last, rule, blocks_per_image);
}

}  // namespace

template <typename T>
void crop_flip_cuda(ImageSet set, const int64_t* index, const int64_t* ids, int64_t samples, T* out, bool channels_last,
                    CropRule rule, void* stream) {
  constexpr int size = kWidest<T>;
  if (samples == 0 || set.pixels() == 0) return;
  if (set.pixels() % size != 0 || !aligned<size>(out)) {
    launch<1>(set, index, ids, samples, out, channels_last, rule, stream);
    return;
  }
  const Staged staged = staged_rows(set, size, channels_last);
  if (staged.rows == 0) {
    launch<size>(set, index, ids, samples, out, channels_last, rule, stream);
    return;
  }
  const int blocks_per_image = (set.height + staged.rows - 1) / staged.rows;
  crop_rows_kernel<size>
      <<<static_cast<unsigned>(samples * blocks_per_image), kThreads, staged.bytes(),
         static_cast<cudaStream_t>(stream)>>>(set, index, ids, out, channels_last, rule, staged, blocks_per_image);
}

#define BAT_INSTANTIATE(T) \
  template void crop_flip_cuda(ImageSet, const int64_t*, const int64_t*, int64_t, T*, bool, CropRule, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
