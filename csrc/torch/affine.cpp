// Torch face of affine.h.
#include "channels.h"

namespace bat_fast {
namespace {

template <typename F>
void over_channels(const Tensor& t, const F& f) {
  torch::stable::parallel_for(0, t.numel(), kGrain, [&, channels = channels_of(t)](int64_t begin, int64_t end) {
    over_channels_cpu(begin, end, channels, f);
  });
}

// float16 on a CPU passes through float32: GCC makes a call for each element of a loop over _Float16.
constexpr Types<float, double, bfloat_bits> kOnCpu;
bool is_half_on_cpu(const Tensor& t) { return t.is_cpu() && t.scalar_type() == ScalarType::Half; }

std::optional<Tensor> widened(const std::optional<Tensor>& t) {
  return t ? std::optional(bat_fast::widened(*t)) : std::nullopt;
}

Tensor affine(const Tensor& x_, const Tensor& scale, const Tensor& shift, bool relu) {
  check_floating({"x", x_});
  check_constant({"scale", scale}, {"x", x_});
  check_constant({"shift", shift}, {"x", x_});
  if (is_half_on_cpu(x_)) return rounded(affine(bat_fast::widened(x_), scale, shift, relu), x_);
  Tensor out = new_like(x_);
  const Tensor x = with_layout_of(x_, out);
  if (x.numel() == 0) return out;
  on_device(
      x,
      [&](auto type) {
        using T = decltype(type);
        using C = compute_t<T>;
        with_constant(relu, [&](auto flag) {
          over_channels(x, Affine{pointer<T>(x), pointer<C>(scale), pointer<C>(shift), pointer<T>(out), flag});
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        using C = compute_t<T>;
        affine_cuda(pointer<T>(x), pointer<C>(scale), pointer<C>(shift), pointer<T>(out), x.numel(), channels_of(x),
                    relu, stream);
      },
      kOnCpu, kAffineTypes);
  return out;
}
BAT_REGISTER(affine, affine)

void affine_grad_(Tensor grad_, const std::optional<Tensor>& y_, const std::optional<Tensor>& scale,
                  const std::optional<Tensor>& other_) {
  check_written({"grad", grad_}, {{"y", &y_}, {"other", &other_}});
  if (scale) check_constant({"scale", *scale}, {"grad", grad_});
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
  on_device(
      grad,
      [&](auto type) {
        using T = decltype(type);
        T* g = pointer<T>(grad);
        const T *at = pointer_or_null<T>(y), *rest = pointer_or_null<T>(other);
        const auto* factor = pointer_or_null<compute_t<T>>(scale);
        with_constant(y.has_value(), [&](auto relu) {
          with_constant(scale.has_value(), [&](auto scaled) {
            with_constant(other.has_value(),
                          [&](auto more) { over_channels(grad, AffineGrad{g, at, factor, rest, relu, scaled, more}); });
          });
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        affine_grad_cuda(pointer<T>(grad), pointer_or_null<T>(y), pointer_or_null<compute_t<T>>(scale),
                         pointer_or_null<T>(other), grad.numel(), channels_of(grad), stream);
      },
      kOnCpu, kAffineTypes);
  if (!dense) torch::stable::copy_(grad_, grad);
}
BAT_REGISTER(affine_grad_, affine_grad_)

}  // namespace
}  // namespace bat_fast
