// Elementwise kernels: 16-byte accesses where the arrays are aligned, a scalar tail for the rest.
#include <cuda_runtime.h>

#include "kernels/perturb.h"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;  // elements of a thread at a time: 16 bytes of float32

template <typename T, typename G>
__device__ void step_one(T& adv, G grad, T clean, const StepLimits<float>& s) {
  adv = store<T>(linf_step(load(adv), grad, load(clean), s));
}

template <typename T, typename G>
__global__ void linf_step_kernel(T* adv, const G* grad, const T* clean, int64_t count, int64_t vectors,
                                 StepLimits<float> s) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < vectors) {
    Vector<T, kVector> a = reinterpret_cast<Vector<T, kVector>*>(adv)[i];
    const Vector<T, kVector> c = reinterpret_cast<const Vector<T, kVector>*>(clean)[i];
    const Vector<G, kVector> g = reinterpret_cast<const Vector<G, kVector>*>(grad)[i];
#pragma unroll
    for (int k = 0; k < kVector; ++k) step_one(a.at[k], g.at[k], c.at[k], s);
    reinterpret_cast<Vector<T, kVector>*>(adv)[i] = a;
  }
  const int64_t rest = vectors * kVector + (i - vectors);  // threads past the vectors take single elements
  if (i >= vectors && rest < count) step_one(adv[rest], grad[rest], clean[rest], s);
}

template <typename T>
__global__ void linf_start_kernel(T* out, const T* clean, const int64_t* index, ImageLayout layout, int64_t total,
                                  StartKey key, float unit, StepLimits<float> s) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int64_t n = i / layout.blocks(), b = i % layout.blocks();
  const Philox r = philox(key.seed, static_cast<uint32_t>(b), key.draw, static_cast<uint64_t>(index[n]));
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t p = 4 * b + k;
    if (p < layout.pixels) {
      const int64_t at = n * layout.pixels + layout.offset(p);
      out[at] = store<T>(linf_start(load(clean[at]), r.word[k], unit, s.lo, s.hi));
    }
  }
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

template <typename T, typename G>
void linf_step_cuda(T* adv, const G* grad, const T* clean, int64_t count, StepLimits<float> s, void* stream) {
  if (count == 0) return;
  const int64_t vectors =
      aligned<kVector>(adv) && aligned<kVector>(grad) && aligned<kVector>(clean) ? count / kVector : 0;
  const int64_t threads = vectors + (count - vectors * kVector);
  linf_step_kernel<<<blocks_for(threads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(adv, grad, clean, count,
                                                                                            vectors, s);
}

template <typename T>
void linf_start_cuda(T* out, const T* clean, const int64_t* index, ImageLayout layout, StartKey key,
                     StepLimits<float> s, void* stream) {
  const int64_t total = layout.samples * layout.blocks();
  if (total == 0) return;
  const float unit = s.eps * (1.0f / 16777216.0f);
  linf_start_kernel<<<blocks_for(total), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(out, clean, index, layout,
                                                                                           total, key, unit, s);
}

#define BAT_STEP(T, G) template void linf_step_cuda(T*, const G*, const T*, int64_t, StepLimits<float>, void*);
BAT_STEP(float, float)
BAT_STEP(float, half_bits)
BAT_STEP(float, bfloat_bits)
BAT_STEP(half_bits, half_bits)
BAT_STEP(half_bits, bfloat_bits)
BAT_STEP(bfloat_bits, half_bits)
BAT_STEP(bfloat_bits, bfloat_bits)

#define BAT_START(T) \
  template void linf_start_cuda(T*, const T*, const int64_t*, ImageLayout, StartKey, StepLimits<float>, void*);
BAT_START(float)
BAT_START(half_bits)
BAT_START(bfloat_bits)

}  // namespace bat_fast
