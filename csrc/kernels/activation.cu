// Elementwise kernels with 16-byte accesses; the gradient of beta is summed in a fixed order.
#include "kernels/activation.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;

// What a kernel evaluates; beta lies on the device, so that the host does not wait for it.
struct SmoothReluOf {
  const float* beta;
  __device__ SmoothRelu<float> ready() const { return SmoothRelu<float>::of(*beta); }
};
struct SoftplusOf {
  Softplus<float> f;
  __device__ Softplus<float> ready() const { return f; }
};

// Calls body(i) for the vectors, then rest(i) for the elements after them, of one thread.
template <int Size, typename Body, typename Rest>
__device__ void over_elements(int64_t count, int64_t vectors, Body body, Rest rest) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = first; i < vectors; i += step) body(i);
  for (int64_t i = vectors * Size + first; i < count; i += step) rest(i);
}

template <typename T, typename F>
__global__ void activate_kernel(const T* x, T* out, int64_t count, int64_t vectors, F function) {
  using Wide = Vector<T, kWidest<T>>;
  const auto f = function.ready();
  over_elements<kWidest<T>>(
      count, vectors,
      [&](int64_t i) {
        Wide v = reinterpret_cast<const Wide*>(x)[i];
#pragma unroll
        for (int k = 0; k < kWidest<T>; ++k) v.at[k] = store<T>(f.value(load(v.at[k])));
        reinterpret_cast<Wide*>(out)[i] = v;
      },
      [&](int64_t i) { out[i] = store<T>(f.value(load(x[i]))); });
}

// With WithSum, partial[block] is the block's part of the sum over grad * beta_term.
template <bool WithSum, typename T, typename F>
__global__ void activate_backward_kernel(const T* grad, const T* x, T* out, float* partial, int64_t count,
                                         int64_t vectors, F function) {
  using Wide = Vector<T, kWidest<T>>;
  const auto f = function.ready();
  float sum = 0.0f;
  const auto one = [&](float g, float v) {
    if constexpr (WithSum) sum += g * f.beta_term(v);
    return store<T>(g * f.slope(v));
  };
  over_elements<kWidest<T>>(
      count, vectors,
      [&](int64_t i) {
        const Wide g = reinterpret_cast<const Wide*>(grad)[i];
        Wide v = reinterpret_cast<const Wide*>(x)[i];
#pragma unroll
        for (int k = 0; k < kWidest<T>; ++k) v.at[k] = one(load(g.at[k]), load(v.at[k]));
        reinterpret_cast<Wide*>(out)[i] = v;
      },
      [&](int64_t i) { out[i] = one(load(grad[i]), load(x[i])); });
  if constexpr (WithSum) {
    const BlockTeam<kThreads> team;
    sum = team.reduce(sum, Sum{});
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  }
}

__global__ void beta_sum_kernel(const float* partial, int64_t blocks, const float* beta, float* grad_beta) {
  const BlockTeam<kThreads> team;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads) sum += partial[i];
  sum = team.reduce(sum, Sum{});
  if (threadIdx.x == 0) *grad_beta = sum * beta_factor(*beta);
}

// The vectors that arrays of `count` elements are read in: none where one of them is not aligned.
template <typename T, typename... Arrays>
int64_t vectors_in(int64_t count, const Arrays*... arrays) {
  return (aligned<kWidest<T>>(arrays) && ...) ? count / kWidest<T> : 0;
}

template <typename T>
int64_t blocks_for(int64_t count, int64_t vectors) {
  const int64_t rest = count - vectors * kWidest<T>;
  return ((vectors > rest ? vectors : rest) + kThreads - 1) / kThreads;
}

template <typename T, typename F>
void activate(const T* x, T* out, int64_t count, F f, void* stream) {
  if (count == 0) return;
  const int64_t vectors = vectors_in<T>(count, x, out);
  const auto blocks = static_cast<unsigned>(blocks_for<T>(count, vectors));
  activate_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(x, out, count, vectors, f);
}

template <typename T, typename F>
void activate_backward(const T* grad, const T* x, T* out, int64_t count, F f, void* stream) {
  if (count == 0) return;
  const int64_t vectors = vectors_in<T>(count, grad, x, out);
  const auto blocks = static_cast<unsigned>(blocks_for<T>(count, vectors));
  activate_backward_kernel<false>
      <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(grad, x, out, nullptr, count, vectors, f);
}

}  // namespace

template <typename T>
void smooth_relu_cuda(const T* x, const float* beta, T* out, int64_t count, void* stream) {
  activate(x, out, count, SmoothReluOf{beta}, stream);
}

template <typename T>
void smooth_relu_backward_cuda(const T* grad, const T* x, const float* beta, T* out, float* partial, float* grad_beta,
                               int64_t count, void* stream) {
  if (grad_beta == nullptr) return activate_backward(grad, x, out, count, SmoothReluOf{beta}, stream);
  const int64_t vectors = vectors_in<T>(count, grad, x, out);
  const int64_t wanted = blocks_for<T>(count, vectors);
  const int64_t blocks = wanted < kSumBlocks ? wanted : kSumBlocks;
  const auto on = static_cast<cudaStream_t>(stream);
  if (blocks > 0) {
    activate_backward_kernel<true>
        <<<static_cast<unsigned>(blocks), kThreads, 0, on>>>(grad, x, out, partial, count, vectors, SmoothReluOf{beta});
  }
  beta_sum_kernel<<<1, kThreads, 0, on>>>(partial, blocks, beta, grad_beta);
}

template <typename T>
void softplus_cuda(const T* x, Softplus<float> f, T* out, int64_t count, void* stream) {
  activate(x, out, count, SoftplusOf{f}, stream);
}

template <typename T>
void softplus_backward_cuda(const T* grad, const T* x, Softplus<float> f, T* out, int64_t count, void* stream) {
  activate_backward(grad, x, out, count, SoftplusOf{f}, stream);
}

#define BAT_INSTANTIATE(T)                                                                                       \
  template void smooth_relu_cuda(const T*, const float*, T*, int64_t, void*);                                    \
  template void smooth_relu_backward_cuda(const T*, const T*, const float*, T*, float*, float*, int64_t, void*); \
  template void softplus_cuda(const T*, Softplus<float>, T*, int64_t, void*);                                    \
  template void softplus_backward_cuda(const T*, const T*, Softplus<float>, T*, int64_t, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
