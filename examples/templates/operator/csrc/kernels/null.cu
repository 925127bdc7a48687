// A thread per element: neighbours read neighbours. activation.cu moves 16 bytes per thread, which 16-bit types need.
#include <cuda_runtime.h>

#include "kernels/null.h"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void null_scale_kernel(const T* x, float scale, T* out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;  // 64 bits: tensors pass 2^31 elements
  if (i < count) out[i] = store<T>(null_scaled(load(x[i]), scale));
}

}  // namespace

template <typename T>
void null_scale_cuda(const T* x, float scale, T* out, int64_t count, void* stream) {
  if (count == 0) return;  // a launch of no blocks is an error
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  null_scale_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(x, scale, out, count);
}

// The types that on_device passes on; another one would be missing when the library is linked.
#define BAT_INSTANTIATE(T) template void null_scale_cuda(const T*, float, T*, int64_t, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
