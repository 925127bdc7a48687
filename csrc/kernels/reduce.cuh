// Reductions over the threads that share a row: one warp, or a whole block.
#pragma once

#include <cuda_runtime.h>

#include "kernels/softmax.h"

namespace bat_fast {

constexpr int kWarp = 32;

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
  template <typename T>
  __device__ static T identity() {
    return T(0);
  }
};
struct Max {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
  template <typename T>
  __device__ static T identity() {
    return -T(INFINITY);
  }
};
struct First {  // of entries in the order of `precedes`
  __device__ Ranked<float> operator()(const Ranked<float>& a, const Ranked<float>& b) const {
    return precedes(b, a) ? b : a;
  }
  template <typename T>
  __device__ static T identity() {
    return {0.0f, -1};
  }
};

template <typename T>
__device__ T from_lane(T v, int offset) {
  return __shfl_xor_sync(0xffffffffu, v, offset);
}
__device__ inline Ranked<float> from_lane(Ranked<float> v, int offset) {
  const int64_t column = __shfl_xor_sync(0xffffffffu, static_cast<long long>(v.column), offset);
  return {__shfl_xor_sync(0xffffffffu, v.value, offset), column};
}

template <typename T, typename Op>
__device__ T warp_reduce(T v, Op op) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v = op(v, from_lane(v, offset));
  return v;
}

// A warp per row: for rows short enough that a block would idle.
struct WarpTeam {
  static constexpr int size = kWarp;
  __device__ int rank() const { return threadIdx.x % kWarp; }
  __device__ void sync() const { __syncwarp(); }  // orders memory, which a shuffle does not
  template <typename T, typename Op>
  __device__ T reduce(T v, Op op) const {
    return warp_reduce(v, op);
  }
};

// A block per row. Every thread of the block must call reduce, and gets the result.
template <int Threads>
struct BlockTeam {
  static constexpr int size = Threads;
  __device__ int rank() const { return threadIdx.x; }
  __device__ void sync() const { __syncthreads(); }
  template <typename T, typename Op>
  __device__ T reduce(T v, Op op) const {
    __shared__ T partial[Threads / kWarp];
    v = warp_reduce(v, op);
    __syncthreads();  // the previous result has been read by everybody
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = v;
    __syncthreads();
    v = threadIdx.x % kWarp < Threads / kWarp ? partial[threadIdx.x % kWarp] : Op::template identity<T>();
    return warp_reduce(v, op);
  }
};

// --- Teams on rows of logits ---------------------------------------------------------------------------------------

constexpr int kRowThreads = 256;
constexpr int64_t kLongRow = 2048;  // columns from which a block works on one row

template <typename Team>
__device__ int64_t team_row() {
  return static_cast<int64_t>(blockIdx.x) * (kRowThreads / Team::size) + threadIdx.x / Team::size;
}

// Calls launch(team, blocks) with the team that suits the length of a row.
template <typename Launch>
void with_team(int64_t rows, int64_t columns, Launch launch) {
  constexpr int64_t per_block = kRowThreads / kWarp;
  if (rows == 0) return;
  if (columns >= kLongRow) {
    launch(BlockTeam<kRowThreads>{}, static_cast<unsigned>(rows));
  } else {
    launch(WarpTeam{}, static_cast<unsigned>((rows + per_block - 1) / per_block));
  }
}

// The running maximum and sum of exponentials of the columns of one thread: softmax in one pass.
struct OnlineSum {
  float top = -INFINITY, sum = 0.0f;
  __device__ void add(float z) {
    if (z > top) {
      sum = sum * expf(top - z) + 1.0f;
      top = z;
    } else if (z > -INFINITY || z != z) {
      sum += expf(z - top);
    }
  }
  template <typename Team>
  __device__ RowNorm<float> norm(const Team& team) const {
    const float all = team.reduce(top, Max{});
    // A thread that saw no finite logit holds 0, or NaN, which must survive.
    const float scaled = top == -INFINITY ? sum : sum * expf(top - all);
    const float total = team.reduce(scaled, Sum{});
    return {all, all == -INFINITY ? NAN : logf(total)};
  }
};

template <typename Team, typename T>
__device__ RowNorm<float> team_norm(const Team& team, const T* z, int64_t classes) {
  OnlineSum s;
  for (int64_t c = team.rank(); c < classes; c += Team::size) s.add(load(z[c]));
  return s.norm(team);
}

__device__ inline void report(LabelError* error, int64_t row, int64_t label, int64_t classes) {
  // The first wrong label of a device is reported, and no thread writes over it: 2 is a report in the making.
  if (error == nullptr || atomicCAS(&error->seen, 0, 2) != 0) return;
  error->row = row;
  error->label = label;
  error->classes = static_cast<int32_t>(classes);
  __threadfence_system();
  atomicExch(&error->seen, 1);
}

// One block: the weighted mean of a batch in a fixed order, so that a run can be repeated bit for bit.
template <int Threads>
__global__ void weighted_mean_kernel(const float* weights, const float* values, int64_t count, bool by_weights,
                                     float* mean, float* denominator) {
  const BlockTeam<Threads> team;
  float total = 0.0f, weight = 0.0f;
  for (int64_t n = threadIdx.x; n < count; n += Threads) {
    const float w = weights == nullptr ? 1.0f : weights[n];
    total += w * values[n];
    weight += w;
  }
  total = team.reduce(total, Sum{});
  weight = team.reduce(weight, Sum{});
  if (threadIdx.x != 0) return;
  if (!by_weights) weight = static_cast<float>(count);
  *mean = total / weight;
  if (denominator != nullptr) *denominator = weight;
}

}  // namespace bat_fast
