// Torch face of perturb.h. Arguments have been checked in bat_fast/ops/perturb.py.
#include "kernels/perturb.h"

#include "bind.h"

namespace bat_fast {
namespace {

template <typename T>
StepLimits<T> limits(double step_size, double eps, double lo, double hi) {
  return {static_cast<T>(step_size), static_cast<T>(eps), static_cast<T>(lo), static_cast<T>(hi)};
}

ImageLayout image_layout(const Tensor& t) {
  const int64_t samples = t.size(0);
  const int64_t pixels = samples ? t.numel() / samples : 0;
  if (t.is_contiguous()) return {samples, pixels, pixels, 1};
  return {samples, pixels, t.size(2) * t.size(3), t.size(1)};  // channels_last
}

bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && is_dense(t) && t.stride(1) == 1 && t.stride(3) == t.size(1) &&
         t.stride(2) == t.size(3) * t.size(1);
}

// Runs step(adv, grad, clean) on arrays of one dense layout, with copies only where the layouts differ.
template <typename Step>
void on_dense(Tensor& adv, const Tensor& grad, const Tensor& clean, Step step) {
  if (is_dense(adv)) {
    step(adv, with_layout_of(grad, adv), with_layout_of(clean, adv));
    return;
  }
  Tensor dense = packed(adv);
  step(dense, with_layout_of(grad, dense), with_layout_of(clean, dense));
  torch::stable::copy_(adv, dense);
}

void linf_step_(Tensor adv, const Tensor& grad, const Tensor& clean, double step_size, double eps, double lo,
                double hi) {
  on_dense(adv, grad, clean, [&](Tensor& a, const Tensor& g, const Tensor& c) {
    // The gradient has the type of the images, or a 16-bit one.
    const auto with_grad_type = [&](auto type, auto run) {
      g.element_size() == 2 ? with_16bit_type(g, run) : run(type);
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

Tensor random_start(const Tensor& clean_, const Tensor& index_, double eps, const std::string& /*norm*/, int64_t seed,
                    int64_t draw, double lo, double hi) {
  const bool fits = clean_.is_contiguous() || is_channels_last(clean_);
  const Tensor clean = fits ? clean_ : packed(clean_);
  const Tensor index = packed(index_);
  Tensor out = torch::stable::empty_like(clean);
  const ImageLayout layout = image_layout(clean);
  const StartKey key = {static_cast<uint64_t>(seed), static_cast<uint32_t>(draw)};
  on_device(
      clean,
      [&](auto type) {
        using T = decltype(type);
        torch::stable::parallel_for(0, layout.samples, row_grain(layout.pixels), [&](int64_t begin, int64_t end) {
          linf_start_cpu(pointer<T>(out), pointer<T>(clean), pointer<int64_t>(index), layout, begin, end, key,
                         limits<T>(0, eps, lo, hi));
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        linf_start_cuda(pointer<T>(out), pointer<T>(clean), pointer<int64_t>(index), layout, key,
                        limits<float>(0, eps, lo, hi), stream);
      });
  return out;
}
BAT_REGISTER(random_start, random_start)

}  // namespace
}  // namespace bat_fast
