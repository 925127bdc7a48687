// Reductions over the threads that share a row: one warp, or a whole block.
#pragma once

#include <cuda_runtime.h>

#include "kernels/portable.h"

namespace bat_fast {

constexpr int kWarp = 32;

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
  static constexpr float identity = 0.0f;
};
struct Max {
  __device__ float operator()(float a, float b) const { return b > a ? b : a; }
  static constexpr float identity = -INFINITY;
};

template <typename Op>
__device__ float warp_reduce(float v, Op op) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v = op(v, __shfl_xor_sync(0xffffffffu, v, offset));
  return v;
}

// A warp per row: for rows short enough that a block would idle.
struct WarpTeam {
  static constexpr int size = kWarp;
  __device__ int rank() const { return threadIdx.x % kWarp; }
  template <typename Op>
  __device__ float reduce(float v, Op op) const {
    return warp_reduce(v, op);
  }
};

// A block per row. Every thread of the block must call reduce, and gets the result.
template <int Threads>
struct BlockTeam {
  static constexpr int size = Threads;
  __device__ int rank() const { return threadIdx.x; }
  template <typename Op>
  __device__ float reduce(float v, Op op) const {
    __shared__ float partial[Threads / kWarp];
    v = warp_reduce(v, op);
    __syncthreads();  // the previous result has been read by everybody
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = v;
    __syncthreads();
    v = threadIdx.x % kWarp < Threads / kWarp ? partial[threadIdx.x % kWarp] : Op::identity;
    return warp_reduce(v, op);
  }
};

}  // namespace bat_fast
