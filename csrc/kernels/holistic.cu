// One block solves the problem: every thread runs the scalar steps on the same sums, so nothing waits for the host.
// In double, since the gaps of losses with a common offset are small; the reductions, not the arithmetic, take the
// time.
#include "kernels/holistic.h"
#include "kernels/reduce.cuh"

namespace bat_fast {
namespace {

constexpr int kThreads = 512;  // 1024 would leave 64 registers to a thread, and spill

__device__ void add(Fold& a, const Fold& b) {
  a.sum += b.sum;
  a.count += b.count;
  a.high = maximum(a.high, b.high);
  a.low = minimum(a.low, b.low);
}

// The same bits in every lane: a butterfly adds the same pairs everywhere.
__device__ Fold fold_warp(Fold v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const auto other = [=](double x) { return __shfl_xor_sync(0xffffffffu, x, offset); };
    add(v, {other(v.sum), other(v.count), other(v.high), other(v.low)});
  }
  return v;
}

// A thread reads and writes its own samples only, so the arrays need no barrier.
template <typename T>
struct Block : Samples<T> {
  __device__ bool leads() const { return threadIdx.x == 0; }
  template <typename F>
  __device__ Fold fold(F f) const {
    __shared__ Fold partial[kThreads / kWarp];
    Fold v = 0;
    for (int64_t i = threadIdx.x; i < this->n; i += kThreads) add(v, f(i));
    v = fold_warp(v);
    __syncthreads();  // the previous result has been read by everybody
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = v;
    __syncthreads();
    const int lane = threadIdx.x % kWarp;
    return fold_warp(lane < kThreads / kWarp ? partial[lane] : Fold(0));
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) holistic_kernel(Samples<T> samples, Holistic problem, float* loss) {
  const Block<T> block = {samples};
  const double value = holistic(block, problem);
  if (block.leads()) *loss = static_cast<float>(value);
}

}  // namespace

template <typename T>
void holistic_cuda(Samples<T> samples, Holistic problem, float* loss, void* stream) {
  holistic_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(samples, problem, loss);
}

template void holistic_cuda(Samples<float>, Holistic, float*, void*);
template void holistic_cuda(Samples<half_bits>, Holistic, float*, void*);
template void holistic_cuda(Samples<bfloat_bits>, Holistic, float*, void*);

}  // namespace bat_fast
