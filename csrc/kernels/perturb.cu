// Elementwise kernels: 16-byte accesses where the arrays are aligned, a scalar tail for the rest.
#include "kernels/l2_step.cuh"
#include "kernels/perturb.h"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;
// Elements of a thread at a time: 16 bytes of the narrower array.
template <typename T, typename G>
constexpr int kVector = 16 / (sizeof(T) < sizeof(G) ? sizeof(T) : sizeof(G));

template <typename T, typename G>
__device__ void step_one(T& adv, G grad, T clean, const StepLimits<float>& s) {
  adv = store<T>(linf_step(load(adv), grad, load(clean), s));
}

template <typename T, typename G>
__global__ void linf_step_kernel(T* adv, const G* grad, const T* clean, int64_t count, int64_t vectors,
                                 StepLimits<float> s) {
  constexpr int kAtOnce = kVector<T, G>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < vectors) {
    Vector<T, kAtOnce> a = reinterpret_cast<Vector<T, kAtOnce>*>(adv)[i];
    const Vector<T, kAtOnce> c = reinterpret_cast<const Vector<T, kAtOnce>*>(clean)[i];
    const Vector<G, kAtOnce> g = reinterpret_cast<const Vector<G, kAtOnce>*>(grad)[i];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) step_one(a.at[k], g.at[k], c.at[k], s);
    reinterpret_cast<Vector<T, kAtOnce>*>(adv)[i] = a;
  }
  const int64_t rest = vectors * kAtOnce + (i - vectors);  // threads past the vectors take single elements
  if (i >= vectors && rest < count) step_one(adv[rest], grad[rest], clean[rest], s);
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

template <typename T, typename G>
void linf_step_cuda(T* adv, const G* grad, const T* clean, int64_t count, StepLimits<float> s, void* stream) {
  if (count == 0) return;
  constexpr int kAtOnce = kVector<T, G>;
  const bool wide = aligned<kAtOnce>(adv) && aligned<kAtOnce>(grad) && aligned<kAtOnce>(clean);
  const int64_t vectors = wide ? count / kAtOnce : 0;
  const int64_t threads = vectors + (count - vectors * kAtOnce);
  linf_step_kernel<<<blocks_for(threads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(adv, grad, clean, count,
                                                                                            vectors, s);
}

int64_t l2_scratch(int64_t samples, int64_t pixels) {
  constexpr int64_t kFloats = sizeof(L2Sums<float>) / sizeof(float);
  return pixels > kOnChip ? samples * chunks_of(pixels) * kFloats : 0;
}

template <typename T, typename G>
void l2_step_cuda(T* adv, const G* grad, const T* clean, int64_t samples, int64_t pixels, float* scratch,
                  StepLimits<float> s, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  if (samples == 0 || pixels == 0) return;
  if (pixels <= kOnChip) {
    constexpr int size = 16 / (sizeof(T) > sizeof(G) ? sizeof(T) : sizeof(G));  // 16 bytes of the wider array
    const bool wide = pixels % size == 0 && aligned<size>(adv) && aligned<size>(grad) && aligned<size>(clean);
    const auto kernel = wide ? l2_step_kernel<size, T, G> : l2_step_kernel<1, T, G>;
    // The most of all calls, whichever thread makes them; beside what is static it is over the usual limit.
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kOnChip * sizeof(float));
    kernel<<<static_cast<unsigned>(samples), kSampleThreads, pixels * sizeof(float), stream>>>(
        adv, grad, clean, static_cast<int>(pixels), s);
    return;
  }
  constexpr int64_t kMostSamples = 65535;  // of one launch: the limit of gridDim.y
  for (int64_t n = 0; n < samples; n += kMostSamples) {
    const int64_t count = samples - n < kMostSamples ? samples - n : kMostSamples, at = n * pixels;
    const dim3 grid(static_cast<unsigned>(chunks_of(pixels)), static_cast<unsigned>(count));
    auto* sums = reinterpret_cast<L2Sums<float>*>(scratch) + n * chunks_of(pixels);
    l2_sums_kernel<<<grid, kSampleThreads, 0, stream>>>(adv + at, grad + at, clean + at, pixels, sums);
    l2_apply_kernel<<<grid, kSampleThreads, 0, stream>>>(adv + at, grad + at, clean + at, pixels, sums, s);
  }
}

#define BAT_STEP(T, G)                                                                     \
  template void linf_step_cuda(T*, const G*, const T*, int64_t, StepLimits<float>, void*); \
  template void l2_step_cuda(T*, const G*, const T*, int64_t, int64_t, float*, StepLimits<float>, void*);
BAT_STEP(float, float)
BAT_STEP(float, half_bits)
BAT_STEP(float, bfloat_bits)
BAT_STEP(half_bits, half_bits)
BAT_STEP(half_bits, bfloat_bits)
BAT_STEP(bfloat_bits, half_bits)
BAT_STEP(bfloat_bits, bfloat_bits)

}  // namespace bat_fast
