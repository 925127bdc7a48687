// Torch face of activation.h.
#include "kernels/activation.h"

#include <vector>

#include "bind.h"

namespace bat_fast {
namespace {

constexpr int64_t kActivationGrain = kGrain / 4;  // an element costs some 20 operations

template <typename T>
Softplus<T> softplus_of(double sharpness) {
  return {static_cast<T>(sharpness), static_cast<T>(1 / sharpness)};
}

template <typename T, typename F>
void activate(const Tensor& x, Tensor& out, F f) {
  torch::stable::parallel_for(0, x.numel(), kActivationGrain, [&](int64_t begin, int64_t end) {
    activate_cpu(pointer<T>(x), pointer<T>(out), begin, end, f);
  });
}

template <typename T, typename F>
void activate_backward(const Tensor& grad, const Tensor& x, Tensor& out, F f) {
  torch::stable::parallel_for(0, x.numel(), kActivationGrain, [&](int64_t begin, int64_t end) {
    activate_backward_cpu(pointer<T>(grad), pointer<T>(x), pointer<T>(out), begin, end, f);
  });
}

void check_beta(const Tensor& x, const Tensor& beta) {
  check_floating({"x", x});
  check_sizes({"beta_raw", beta}, {});
  check_type({"beta_raw", beta}, x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float);
  check_beside({"beta_raw", beta}, {"x", x});
}
void check_softplus(const Tensor& x, double sharpness) {
  check_floating({"x", x});
  check_number("sharpness", sharpness, 1e-30, 1e30);
}

Tensor smooth_relu(const Tensor& x_, const Tensor& beta) {
  check_beta(x_, beta);
  Tensor out = torch::stable::empty_like(widened(x_));
  const Tensor x = with_layout_of(widened(x_), out);
  on_device(
      x,
      [&](auto type) {
        using T = decltype(type);
        activate<T>(x, out, SmoothRelu<T>::of(*pointer<T>(beta)));
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        smooth_relu_cuda(pointer<T>(x), pointer<float>(beta), pointer<T>(out), x.numel(), stream);
      });
  return rounded(out, x_);
}
BAT_REGISTER(smooth_relu, smooth_relu)

// The gradient of x, and the sum over grad * df/dbeta.
template <typename T>
double backward_with_sum(const Tensor& grad, const Tensor& x, T beta, Tensor& out) {
  const T *g = pointer<T>(grad), *from = pointer<T>(x);
  T* to = pointer<T>(out);
  const int64_t count = x.numel(), chunks = (count + kSumChunk - 1) / kSumChunk;
  std::vector<double> partial(chunks);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t stop = (c + 1) * kSumChunk < count ? (c + 1) * kSumChunk : count;
      partial[c] = smooth_relu_backward_cpu(g, from, to, c * kSumChunk, stop, SmoothRelu<T>::of(beta));
    }
  });
  double sum = 0;
  for (const double part : partial) sum += part;
  return sum * beta_factor(static_cast<double>(beta));
}

std::tuple<Tensor, Tensor> smooth_relu_backward(const Tensor& grad_, const Tensor& x_, const Tensor& beta,
                                                bool with_beta) {
  check_beta(x_, beta);
  check_same({"grad", grad_}, {"x", x_});
  Tensor out = torch::stable::empty_like(widened(x_));
  const Tensor x = with_layout_of(widened(x_), out), grad = with_layout_of(widened(grad_), out);
  const ScalarType type = beta.scalar_type();
  Tensor grad_beta = with_beta ? new_tensor(beta, {}, type) : new_tensor(beta, {0}, type);
  on_device(
      x,
      [&](auto type) {
        using T = decltype(type);
        const T value = *pointer<T>(beta);
        if (!with_beta) return activate_backward<T>(grad, x, out, SmoothRelu<T>::of(value));
        *pointer<T>(grad_beta) = static_cast<T>(backward_with_sum(grad, x, value, out));
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        Tensor partial = new_tensor(beta, {with_beta ? kSumBlocks : 0}, ScalarType::Float);
        float* sum = with_beta ? pointer<float>(grad_beta) : nullptr;
        smooth_relu_backward_cuda(pointer<T>(grad), pointer<T>(x), pointer<float>(beta), pointer<T>(out),
                                  pointer<float>(partial), sum, x.numel(), stream);
      });
  return {rounded(out, x_), grad_beta};
}
BAT_REGISTER(smooth_relu_backward, smooth_relu_backward)

Tensor softplus(const Tensor& x_, double sharpness) {
  check_softplus(x_, sharpness);
  Tensor out = torch::stable::empty_like(widened(x_));
  const Tensor x = with_layout_of(widened(x_), out);
  on_device(
      x, [&](auto type) { activate<decltype(type)>(x, out, softplus_of<decltype(type)>(sharpness)); },
      [&](auto type, void* stream) {
        using T = decltype(type);
        softplus_cuda(pointer<T>(x), softplus_of<float>(sharpness), pointer<T>(out), x.numel(), stream);
      });
  return rounded(out, x_);
}
BAT_REGISTER(softplus, softplus)

Tensor softplus_backward(const Tensor& grad_, const Tensor& x_, double sharpness) {
  check_softplus(x_, sharpness);
  check_same({"grad", grad_}, {"x", x_});
  Tensor out = torch::stable::empty_like(widened(x_));
  const Tensor x = with_layout_of(widened(x_), out), grad = with_layout_of(widened(grad_), out);
  on_device(
      x, [&](auto type) { activate_backward<decltype(type)>(grad, x, out, softplus_of<decltype(type)>(sharpness)); },
      [&](auto type, void* stream) {
        using T = decltype(type);
        softplus_backward_cuda(pointer<T>(grad), pointer<T>(x), softplus_of<float>(sharpness), pointer<T>(out),
                               x.numel(), stream);
      });
  return rounded(out, x_);
}
BAT_REGISTER(softplus_backward, softplus_backward)

}  // namespace
}  // namespace bat_fast
