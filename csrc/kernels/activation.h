// Smooth activations. Element math shared by CPU and CUDA, CPU loops, CUDA launchers.
#pragma once

#include "kernels/portable.h"

namespace bat_fast {

constexpr float kLargestLog = 8.507059173e37f;  // 2^126, the end of fast_log1p

// f(x) = x - log(b x + 1) / b for x >= 0, else 0, with b = beta^2. With u = b x it is x (1 - log(1 + u) / u), which
// neither divides by b nor cancels; its limit for b -> 0 is 0.
template <typename T>
struct SmoothRelu {
  T b;
  static BAT_HD SmoothRelu of(T beta) { return {minimum(beta * beta, T(kLargestLog))}; }

  struct Point {
    T x, u;
  };
  BAT_HD Point point(T x) const {
    x = maximum(x, T(0));
    return {x, minimum(b * x, T(kLargestLog))};
  }
  BAT_HD T value(T x) const {
    const Point p = point(x);
    return p.x * fast_log1p(p.u).deficit;
  }
  BAT_HD T slope(T x) const {
    const T u = point(x).u;
    return u * (T(1) / (T(1) + u));
  }
  // df/dbeta = (2 / beta) * beta_term(x).
  BAT_HD T beta_term(T x) const {
    const Point p = point(x);
    const Log1p<T> l = fast_log1p(p.u);
    const T inverse = T(1) / (T(1) + p.u);
    return p.x * (p.u < T(0.5) ? p.u * inverse - l.deficit : l.log / p.u - inverse);
  }
};

template <typename T>
BAT_HD T beta_factor(T beta) {
  return beta == T(0) ? T(0) : T(2) / beta;
}

// f(x) = log(1 + exp(a x)) / a, f'(x) = sigmoid(a x).
template <typename T>
struct Softplus {
  T sharpness, inverse;

  BAT_HD T value(T x) const {
    const T z = sharpness * x;
    return maximum(x, T(0)) + fast_log1p(fast_exp(z < T(0) ? z : -z)).log * inverse;
  }
  BAT_HD T slope(T x) const {
    const T z = sharpness * x;
    const T s = fast_exp(z < T(0) ? z : -z);
    return (z < T(0) ? s : T(1)) / (T(1) + s);
  }
};

template <typename T, typename F>
BAT_CLONES void activate_cpu(const T* __restrict__ x, T* __restrict__ out, int64_t begin, int64_t end, F f) {
  for (int64_t i = begin; i < end; ++i) out[i] = f.value(x[i]);
}

template <typename T, typename F>
BAT_CLONES void activate_backward_cpu(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ out,
                                      int64_t begin, int64_t end, F f) {
  for (int64_t i = begin; i < end; ++i) out[i] = grad[i] * f.slope(x[i]);
}

// The elements of one partial sum: few enough to add in float32, and fixed, so that the sum does not depend on the
// number of threads.
constexpr int64_t kSumChunk = 4096;

// The gradient of one chunk, and its part of the sum over grad * beta_term.
template <typename T>
BAT_CLONES T smooth_relu_backward_cpu(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ out,
                                      int64_t begin, int64_t end, SmoothRelu<T> f) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = begin; i < end; ++i) {
    out[i] = grad[i] * f.slope(x[i]);
    sum += grad[i] * f.beta_term(x[i]);
  }
  return sum;
}

// CUDA launchers, in activation.cu. Arrays are dense and share one layout; `stream` is a cudaStream_t.
template <typename T>
void smooth_relu_cuda(const T* x, const float* beta, T* out, int64_t count, void* stream);
// grad_beta may be null; else `partial` holds kSumBlocks floats.
constexpr int64_t kSumBlocks = 1024;
template <typename T>
void smooth_relu_backward_cuda(const T* grad, const T* x, const float* beta, T* out, float* partial, float* grad_beta,
                               int64_t count, void* stream);
template <typename T>
void softplus_cuda(const T* x, Softplus<float> f, T* out, int64_t count, void* stream);
template <typename T>
void softplus_backward_cuda(const T* grad, const T* x, Softplus<float> f, T* out, int64_t count, void* stream);

}  // namespace bat_fast
