// A thread draws the four numbers of one Philox block; for normal starts a block of threads works on one sample.
#include "kernels/random_start.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kStartThreads = 256;

// `wide`: the four pixels of a block lie side by side and aligned, and are one access.
template <typename T>
__global__ void linf_start_kernel(T* out, const T* clean, const int64_t* index, ImageLayout layout, int64_t total,
                                  bool wide, StartKey key, float unit, StartLimits<float> s) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kStartThreads + threadIdx.x;
  if (i >= total) return;
  // A division in 64 bits takes as long as everything else here, and is rarely needed.
  const int64_t blocks = layout.blocks();
  const int64_t n = total >> 32 == 0 ? static_cast<uint32_t>(i) / static_cast<uint32_t>(blocks) : i / blocks;
  const int64_t b = i - n * blocks;
  const Philox r = philox(key.seed, static_cast<uint32_t>(b), key.draw, static_cast<uint64_t>(index[n]));
  if (wide) {
    const Vector<T, 4> x = reinterpret_cast<const Vector<T, 4>*>(clean)[i];
    Vector<T, 4> v;
#pragma unroll
    for (int k = 0; k < 4; ++k) v.at[k] = store<T>(linf_start(load(x.at[k]), r.word[k], unit, s.lo, s.hi));
    reinterpret_cast<Vector<T, 4>*>(out)[i] = v;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t p = 4 * b + k;
    if (p < layout.pixels) {
      const int64_t at = n * layout.pixels + layout.offset(p);
      out[at] = store<T>(linf_start(load(clean[at]), r.word[k], unit, s.lo, s.hi));
    }
  }
}

// channels_last images of three channels: four neighbouring pixels of each channel are 12 neighbours in memory.
template <typename T>
__global__ void rgb_start_kernel(T* __restrict__ out, const T* __restrict__ clean, const int64_t* __restrict__ index,
                                 uint32_t quads, uint32_t total, StartKey key, float unit, StartLimits<float> s) {
  const uint32_t i = blockIdx.x * kStartThreads + threadIdx.x;
  if (i >= total) return;
  const uint32_t n = i / quads, q = i - n * quads;
  const auto* from = reinterpret_cast<const Vector<T, 4>*>(clean) + int64_t{3} * i;
  auto* to = reinterpret_cast<Vector<T, 4>*>(out) + int64_t{3} * i;
  Vector<T, 4> v[3];
#pragma unroll
  for (int k = 0; k < 3; ++k) v[k] = from[k];
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const Philox r = philox(key.seed, c * quads + q, key.draw, static_cast<uint64_t>(index[n]));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      T& pixel = v[(3 * k + c) / 4].at[(3 * k + c) % 4];
      pixel = store<T>(linf_start(load(pixel), r.word[k], unit, s.lo, s.hi));
    }
  }
#pragma unroll
  for (int k = 0; k < 3; ++k) to[k] = v[k];
}

// The numbers are drawn twice, once for their norm and once to be used: that is cheaper than keeping them.
template <typename T>
__global__ void normal_start_kernel(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key,
                                    bool ball, StartLimits<float> s) {
  const BlockTeam<kStartThreads> team;
  const int64_t n = blockIdx.x, first = n * layout.pixels;
  const uint64_t sample = static_cast<uint64_t>(index[n]);
  float scale = s.eps;
  if (ball) {
    float square = 0.0f;
    for (int64_t b = threadIdx.x; b < layout.blocks(); b += kStartThreads) {
      each_normal<float>(layout, key, sample, b, [&](int64_t, float normal) { square += normal * normal; });
    }
    scale = s.eps * l2_distance<float>(sample, layout, key) / sqrtf(team.reduce(square, Sum{}));
  }
  for (int64_t b = threadIdx.x; b < layout.blocks(); b += kStartThreads) {
    each_normal<float>(layout, key, sample, b, [&](int64_t at, float normal) {
      const float v = load(clean[first + at]) + scale * normal;
      out[first + at] = store<T>(minimum(maximum(v, s.lo), s.hi));
    });
  }
}

}  // namespace

template <typename T>
void linf_start_cuda(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key,
                     StartLimits<float> s, void* stream) {
  const int64_t total = layout.samples * layout.blocks();
  if (total == 0) return;
  const float unit = s.eps * (1.0f / 16777216.0f);
  const auto blocks = [](int64_t threads) {
    return static_cast<unsigned>((threads + kStartThreads - 1) / kStartThreads);
  };
  const bool whole = layout.plane % 4 == 0 && aligned<4>(out) && aligned<4>(clean);
  const int64_t quads = layout.samples * (layout.plane / 4);
  if (whole && layout.channels == 3 && quads < int64_t{1} << 31) {
    rgb_start_kernel<<<blocks(quads), kStartThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        out, clean, index, static_cast<uint32_t>(layout.plane / 4), static_cast<uint32_t>(quads), key, unit, s);
    return;
  }
  linf_start_kernel<<<blocks(total), kStartThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      out, clean, index, layout, total, whole && layout.channels == 1, key, unit, s);
}

template <typename T>
void normal_start_cuda(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key, bool ball,
                       StartLimits<float> s, void* stream) {
  if (layout.samples == 0 || layout.pixels == 0) return;
  normal_start_kernel<<<static_cast<unsigned>(layout.samples), kStartThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      out, clean, index, layout, key, ball, s);
}

#define BAT_START(T)                                                                                             \
  template void linf_start_cuda(T*, const T*, const int64_t*, ImageLayout, StartKey, StartLimits<float>, void*); \
  template void normal_start_cuda(T*, const T*, const int64_t*, ImageLayout, StartKey, bool, StartLimits<float>, void*);
BAT_START(float)
BAT_START(half_bits)
BAT_START(bfloat_bits)

}  // namespace bat_fast
