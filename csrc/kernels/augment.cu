// A block works on a piece of one image; a thread writes 16 neighbouring bytes of the batch, in either memory format.
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
  if (samples == 0) return;
  if (set.pixels() % kWidest<T> == 0 && aligned<kWidest<T>>(out)) {
    launch<kWidest<T>>(set, index, ids, samples, out, channels_last, rule, stream);
  } else {
    launch<1>(set, index, ids, samples, out, channels_last, rule, stream);
  }
}

#define BAT_INSTANTIATE(T) \
  template void crop_flip_cuda(ImageSet, const int64_t*, const int64_t*, int64_t, T*, bool, CropRule, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
