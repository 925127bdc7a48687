// Torch face of perturb.h.
#include "kernels/perturb.h"

#include "bind.h"

namespace bat_fast {
namespace {

template <typename T>
StepLimits<T> limits(double step_size, double eps, double lo, double hi) {
  return {static_cast<T>(step_size), static_cast<T>(eps), static_cast<T>(lo), static_cast<T>(hi)};
}

void check_images(const Tensor& adv, const Tensor& grad, const Tensor& clean, double step_size, double eps, double lo,
                  double hi) {
  check_step(step_size, eps, lo, hi);
  check_floating({"adv", adv});
  check_same({"clean", clean}, {"adv", adv});
  check_like({"grad", grad}, {"adv", adv});
  const ScalarType type = grad.scalar_type();
  if (type != ScalarType::Half && type != ScalarType::BFloat16) check_type({"grad", grad}, adv.scalar_type());
  check_alone({"adv", adv});
  check_apart({"adv", adv}, {"clean", clean});
  check_apart({"adv", adv}, {"grad", grad});
}

// Runs step(adv, grad, clean) on arrays of one dense layout, with copies only where the layouts differ.
// `whole_samples`: the pixels of a sample have to follow each other, which they do not where another dimension is
// outside the batch.
template <typename Step>
void on_dense(Tensor& adv, const Tensor& grad, const Tensor& clean, bool whole_samples, Step step) {
  const bool whole = adv.is_contiguous() || adv.size(0) <= 1 || adv.stride(0) * adv.size(0) == adv.numel();
  if (is_dense(adv) && (whole || !whole_samples)) {
    step(adv, with_layout_of(grad, adv), with_layout_of(clean, adv));
    return;
  }
  Tensor dense = packed(adv);
  step(dense, with_layout_of(grad, dense), with_layout_of(clean, dense));
  torch::stable::copy_(adv, dense);
}

void linf_step_(Tensor adv, const Tensor& grad, const Tensor& clean, double step_size, double eps, double lo,
                double hi) {
  check_images(adv, grad, clean, step_size, eps, lo, hi);
  on_dense(adv, grad, clean, false, [&](Tensor& a, const Tensor& g, const Tensor& c) {
    // The gradient has the type of the images, or a 16-bit one.
    const auto with_grad_type = [&](auto type, auto run) {
      if (!with_type(g, Types<half_bits, bfloat_bits>{}, run)) run(type);
    };
    on_device(
        a,
        [&](auto type) {
          using T = decltype(type);
          with_grad_type(type, [&](auto grad_type) {
            const auto* from = pointer<decltype(grad_type)>(g);
            torch::stable::parallel_for(0, a.numel(), kGrain, [&](int64_t begin, int64_t end) {
              linf_step_cpu(pointer<T>(a), from, pointer<T>(c), begin, end, limits<T>(step_size, eps, lo, hi));
            });
          });
        },
        [&](auto type, void* stream) {
          using T = decltype(type);
          with_grad_type(type, [&](auto grad_type) {
            linf_step_cuda(pointer<T>(a), pointer<decltype(grad_type)>(g), pointer<T>(c), a.numel(),
                           limits<float>(step_size, eps, lo, hi), stream);
          });
        });
  });
}
BAT_REGISTER(linf_step_, linf_step_)

void l2_step_(Tensor adv, const Tensor& grad, const Tensor& clean, double step_size, double eps, double lo, double hi) {
  check_images(adv, grad, clean, step_size, eps, lo, hi);
  STD_TORCH_CHECK(adv.dim() > 0, "bat_fast: adv must be a batch [N, ...], got a scalar");
  const int64_t samples = adv.size(0), pixels = samples ? adv.numel() / samples : 0;
  on_dense(adv, grad, clean, true, [&](Tensor& a, const Tensor& g, const Tensor& c) {
    const auto with_grad_type = [&](auto type, auto run) {
      if (!with_type(g, Types<half_bits, bfloat_bits>{}, run)) run(type);
    };
    on_device(
        a,
        [&](auto type) {
          using T = decltype(type);
          with_grad_type(type, [&](auto grad_type) {
            const auto* from = pointer<decltype(grad_type)>(g);
            torch::stable::parallel_for(0, samples, row_grain(pixels), [&](int64_t begin, int64_t end) {
              l2_step_cpu(pointer<T>(a), from, pointer<T>(c), pixels, begin, end, limits<T>(step_size, eps, lo, hi));
            });
          });
        },
        [&](auto type, void* stream) {
          using T = decltype(type);
          Tensor scratch = new_tensor(a, {l2_scratch(samples, pixels)}, ScalarType::Float);
          with_grad_type(type, [&](auto grad_type) {
            l2_step_cuda(pointer<T>(a), pointer<decltype(grad_type)>(g), pointer<T>(c), samples, pixels,
                         pointer<float>(scratch), limits<float>(step_size, eps, lo, hi), stream);
          });
        });
  });
}
BAT_REGISTER(l2_step_, l2_step_)

}  // namespace
}  // namespace bat_fast
