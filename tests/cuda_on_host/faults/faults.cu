// A small reduction with one fault at a time, chosen by FAULT, so that each net can be seen to catch.
#include <cuda_runtime.h>

#include "kernels/reduce.cuh"

enum Fault {
  none,
  missing_barrier,
  blocks_share_a_result,
  global_overrun,
  shared_overrun,
  unset_shared,
  divergent_barrier,
  too_much_shared,
};
constexpr Fault fault = FAULT;
constexpr int kThreads = 64;

// sums[b] = the sum of the values of block b, of kThreads each.
__global__ void block_sums_kernel(const float* values, float* sums) {
  __shared__ float staged[kThreads];
  const int t = threadIdx.x;
  if (fault != unset_shared || t != 5) staged[t + (fault == shared_overrun)] = values[blockIdx.x * kThreads + t];
  if (fault == divergent_barrier && t < kThreads / 2) __syncthreads();
  if (fault != missing_barrier) __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) staged[t] += staged[t + half];
    __syncthreads();
  }
  if (t == 0) sums[fault == blocks_share_a_result ? 0 : blockIdx.x + (fault == global_overrun)] = staged[0];
}

// The same by a warp per block, through the shuffles, with dynamic shared memory in between.
__global__ void warp_sums_kernel(const float* values, float* sums) {
  extern __shared__ float staged[];
  for (int i = threadIdx.x; i < kThreads; i += warpSize) staged[i] = values[blockIdx.x * kThreads + i];
  __syncwarp();
  float sum = 0;
  for (int i = threadIdx.x; i < kThreads; i += warpSize) sum += staged[kThreads - 1 - i];
  sum = bat_fast::warp_reduce(sum, bat_fast::Sum{});
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

void block_sums(const float* values, float* sums, int blocks) { block_sums_kernel<<<blocks, kThreads>>>(values, sums); }
void warp_sums(const float* values, float* sums, int blocks) {
  constexpr int bytes = fault == too_much_shared ? (48 << 10) + 4 : kThreads * sizeof(float);
  warp_sums_kernel<<<blocks, 32, bytes>>>(values, sums);
}
