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
  const int64_t n = i / layout.blocks(), b = i % layout.blocks();
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
  const bool wide = layout.channels == 1 && layout.pixels % 4 == 0 && aligned<4>(out) && aligned<4>(clean);
  linf_start_kernel<<<static_cast<unsigned>((total + kStartThreads - 1) / kStartThreads), kStartThreads, 0,
                      static_cast<cudaStream_t>(stream)>>>(out, clean, index, layout, total, wide, key, unit, s);
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
