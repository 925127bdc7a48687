// Torch face of `AffineRelu` in affine.h. Only the attack's engine calls it, with arguments that it made.
#include "channels.h"

namespace bat_fast {
namespace {

// Whole bytes of bits, in parallel.
template <typename F>
void over_bytes(const Tensor& t, const F& f) {
  torch::stable::parallel_for(0, (t.numel() + 7) / 8, kGrain / 8, f);
}

// Beside oneDNN, which computes convolutions in float32 and bfloat16, a CPU meets float64 and float16 here.
std::tuple<Tensor, Tensor> affine_relu_(Tensor x_, const std::optional<Tensor>& other_, const Tensor& scale,
                                        const Tensor& shift) {
  check_written({"x", x_}, {{"other", &other_}});
  check_constant({"scale", scale}, {"x", x_});
  check_constant({"shift", shift}, {"x", x_});
  const bool dense = is_dense(x_);
  Tensor x = dense ? x_ : packed(x_), y = new_like(x);
  Tensor bits = new_tensor(x, {(x.numel() + 7) / 8}, ScalarType::Byte);
  if (x.numel() == 0) return {y, bits};
  const auto other = laid_out(other_, x);
  const auto relu = [&](auto type) {
    using T = decltype(type);
    using C = compute_t<T>;
    return AffineRelu<T>{pointer<T>(x), pointer_or_null<T>(other), pointer<C>(scale), pointer<C>(shift),
                         pointer<T>(y), pointer<uint8_t>(bits)};
  };
  on_device(
      x,
      [&](auto type) {
        over_bytes(x, [&, f = relu(type)](int64_t begin, int64_t end) {
          affine_relu_cpu(begin, end, x.numel(), channels_of(x), f);
        });
      },
      [&](auto type, void* stream) { affine_relu_cuda(relu(type), x.numel(), channels_of(x), stream); }, kAffineTypes,
      kAffineTypes);
  if (!dense && other_) torch::stable::copy_(x_, x);
  return {y, bits};
}
BAT_REGISTER(affine_relu_, affine_relu_)

void affine_relu_grad_(Tensor grad, const Tensor& bits, const Tensor& scale, const std::optional<Tensor>& other_) {
  check_written({"grad", grad}, {{"other", &other_}});
  check_constant({"scale", scale}, {"grad", grad});
  check_type({"bits", bits}, ScalarType::Byte);
  check_beside({"bits", bits}, {"grad", grad});
  if (grad.numel() == 0) return;
  STD_TORCH_CHECK(is_dense(grad) && bits.is_contiguous() && bits.numel() == (grad.numel() + 7) / 8,
                  "bat_fast: affine_relu_grad_ takes a gradient laid out as y was, and the bits of y");
  const auto other = laid_out(other_, grad);
  const auto passed = [&](auto type) {
    using T = decltype(type);
    return AffineReluGrad<T>{pointer<T>(grad), pointer<uint8_t>(bits), pointer<compute_t<T>>(scale),
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
      kAffineTypes, kAffineTypes);
}
BAT_REGISTER(affine_relu_grad_, affine_relu_grad_)

}  // namespace
}  // namespace bat_fast
