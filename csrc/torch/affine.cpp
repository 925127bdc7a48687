// Torch face of affine.h. Arguments have been checked in bat_fast/ops/affine.py.
#include "kernels/affine.h"

#include "bind.h"

namespace bat_fast {
namespace {

// In a dense tensor, whatever the order of its dimensions, the channel is (i / stride) % channels.
Channels channels_of(const Tensor& t) {
  const bool one = t.dim() < 2 || t.size(1) == 1;
  return one ? Channels{1, t.numel()} : Channels{t.size(1), t.stride(1)};
}

template <typename F>
void over_channels(const Tensor& t, const F& f) {
  torch::stable::parallel_for(0, t.numel(), kGrain, [&, channels = channels_of(t)](int64_t begin, int64_t end) {
    over_channels_cpu(begin, end, channels, f);
  });
}

// float16 on a CPU passes through float32: GCC makes a call for each element of a loop over _Float16.
constexpr Types<float, double, bfloat_bits> kOnCpu;
constexpr Types<float, double, half_bits, bfloat_bits> kOnCuda;
bool is_half_on_cpu(const Tensor& t) { return t.is_cpu() && t.scalar_type() == ScalarType::Half; }

void check_floating(const Tensor& t) {
  STD_TORCH_CHECK(with_type(t, kOnCuda, [](auto) {}), "bat_fast: affine takes floating point alone");
}
template <typename C>
const C* constants(const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == stored_as(C{}),
                  "bat_fast: affine takes constants in the type that it computes in");
  return pointer<C>(t);
}
template <typename C>
const C* constants_or_null(const std::optional<Tensor>& t) {
  return t ? constants<C>(*t) : nullptr;
}
std::optional<Tensor> widened(const std::optional<Tensor>& t) {
  return t ? std::optional(bat_fast::widened(*t)) : std::nullopt;
}
std::optional<Tensor> laid_out(const std::optional<Tensor>& t, const Tensor& like) {
  return t ? std::optional(with_layout_of(*t, like)) : std::nullopt;
}

Tensor affine(const Tensor& x_, const Tensor& scale, const Tensor& shift, bool relu) {
  if (is_half_on_cpu(x_)) return rounded(affine(bat_fast::widened(x_), scale, shift, relu), x_);
  Tensor out = new_like(x_);
  const Tensor x = with_layout_of(x_, out);
  if (x.numel() == 0) return out;
  check_floating(x);
  on_device(
      x,
      [&](auto type) {
        using T = decltype(type);
        using C = compute_t<T>;
        with_constant(relu, [&](auto flag) {
          over_channels(x, Affine{pointer<T>(x), constants<C>(scale), constants<C>(shift), pointer<T>(out), flag});
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        using C = compute_t<T>;
        affine_cuda(pointer<T>(x), constants<C>(scale), constants<C>(shift), pointer<T>(out), x.numel(), channels_of(x),
                    relu, stream);
      },
      kOnCpu, kOnCuda);
  return out;
}
BAT_REGISTER(affine, affine)

void affine_grad_(Tensor grad_, const std::optional<Tensor>& y_, const std::optional<Tensor>& scale,
                  const std::optional<Tensor>& other_) {
  if (grad_.numel() == 0) return;
  if (is_half_on_cpu(grad_)) {
    const Tensor grad = bat_fast::widened(grad_);
    affine_grad_(grad, widened(y_), scale, widened(other_));
    torch::stable::copy_(grad_, grad);
    return;
  }
  const bool dense = is_dense(grad_);
  Tensor grad = dense ? grad_ : packed(grad_);
  const auto y = laid_out(y_, grad), other = laid_out(other_, grad);
  check_floating(grad);
  on_device(
      grad,
      [&](auto type) {
        using T = decltype(type);
        T* g = pointer<T>(grad);
        const T *at = pointer_or_null<T>(y), *rest = pointer_or_null<T>(other);
        const auto* factor = constants_or_null<compute_t<T>>(scale);
        with_constant(y.has_value(), [&](auto relu) {
          with_constant(scale.has_value(), [&](auto scaled) {
            with_constant(other.has_value(),
                          [&](auto more) { over_channels(grad, AffineGrad{g, at, factor, rest, relu, scaled, more}); });
          });
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        affine_grad_cuda(pointer<T>(grad), pointer_or_null<T>(y), constants_or_null<compute_t<T>>(scale),
                         pointer_or_null<T>(other), grad.numel(), channels_of(grad), stream);
      },
      kOnCpu, kOnCuda);
  if (!dense) torch::stable::copy_(grad_, grad);
}
BAT_REGISTER(affine_grad_, affine_grad_)

// Whole bytes of bits, in parallel.
template <typename F>
void over_bytes(const Tensor& t, const F& f) {
  torch::stable::parallel_for(0, (t.numel() + 7) / 8, kGrain / 8, f);
}

// Beside oneDNN, which computes convolutions in float32 and bfloat16, a CPU meets float64 and float16 here.
std::tuple<Tensor, Tensor> affine_relu_(Tensor x_, const std::optional<Tensor>& other_, const Tensor& scale,
                                        const Tensor& shift) {
  const bool dense = is_dense(x_);
  Tensor x = dense ? x_ : packed(x_), y = new_like(x);
  Tensor bits = new_tensor(x, {(x.numel() + 7) / 8}, ScalarType::Byte);
  if (x.numel() == 0) return {y, bits};
  const auto other = laid_out(other_, x);
  check_floating(x);
  const auto relu = [&](auto type) {
    using T = decltype(type);
    using C = compute_t<T>;
    return AffineRelu<T>{pointer<T>(x), pointer_or_null<T>(other), constants<C>(scale), constants<C>(shift),
                         pointer<T>(y), pointer<uint8_t>(bits)};
  };
  on_device(
      x,
      [&](auto type) {
        over_bytes(x, [&, f = relu(type)](int64_t begin, int64_t end) {
          affine_relu_cpu(begin, end, x.numel(), channels_of(x), f);
        });
      },
      [&](auto type, void* stream) { affine_relu_cuda(relu(type), x.numel(), channels_of(x), stream); }, kOnCuda,
      kOnCuda);
  if (!dense && other_) torch::stable::copy_(x_, x);
  return {y, bits};
}
BAT_REGISTER(affine_relu_, affine_relu_)

void affine_relu_grad_(Tensor grad, const Tensor& bits, const Tensor& scale, const std::optional<Tensor>& other_) {
  if (grad.numel() == 0) return;
  STD_TORCH_CHECK(is_dense(grad) && bits.numel() == (grad.numel() + 7) / 8,
                  "bat_fast: affine_relu_grad_ takes a gradient laid out as y was, and the bits of y");
  const auto other = laid_out(other_, grad);
  check_floating(grad);
  const auto passed = [&](auto type) {
    using T = decltype(type);
    return AffineReluGrad<T>{pointer<T>(grad), pointer<uint8_t>(bits), constants<compute_t<T>>(scale),
                             pointer_or_null<T>(other)};
  };
  on_device(
      grad,
      [&](auto type) {
        over_bytes(grad, [&, f = passed(type)](int64_t begin, int64_t end) {
          affine_relu_grad_cpu(begin, end, grad.numel(), channels_of(grad), f);
        });
      },
      [&](auto type, void* stream) { affine_relu_grad_cuda(passed(type), grad.numel(), channels_of(grad), stream); },
      kOnCuda, kOnCuda);
}
BAT_REGISTER(affine_relu_grad_, affine_relu_grad_)

}  // namespace
}  // namespace bat_fast
