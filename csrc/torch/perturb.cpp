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
  Tensor dense = torch::stable::contiguous(adv);
  step(dense, with_layout_of(grad, dense), with_layout_of(clean, dense));
  torch::stable::copy_(adv, dense);
}

void linf_step(Tensor adv, const Tensor& grad, const Tensor& clean, double step_size, double eps, double lo,
               double hi) {
  on_dense(adv, grad, clean, [&](Tensor& a, const Tensor& g, const Tensor& c) {
    with_cpu_type(a, [&](auto type) {
      using T = decltype(type);
      const auto run = [&](auto grad_type) {
        using G = decltype(grad_type);
        torch::stable::parallel_for(0, a.numel(), kGrain, [&](int64_t begin, int64_t end) {
          linf_step_cpu(pointer<T>(a), pointer<G>(g), pointer<T>(c), begin, end, limits<T>(step_size, eps, lo, hi));
        });
      };
      g.element_size() == 2 ? with_16bit_type(g, run) : run(type);
    });
  });
}
BAT_REGISTER_CPU(linf_step_, linf_step)

Tensor random_start(const Tensor& clean, const Tensor& index, double eps, const std::string& norm, int64_t seed,
                    int64_t draw, double lo, double hi) {
  (void)norm;
  const bool fits = clean.is_contiguous() || is_channels_last(clean);
  const Tensor image = fits ? clean : torch::stable::contiguous(clean);
  const Tensor ids = torch::stable::contiguous(index);
  Tensor out = torch::stable::empty_like(image);
  const ImageLayout layout = image_layout(image);
  const StartKey key = {static_cast<uint64_t>(seed), static_cast<uint32_t>(draw)};
  with_cpu_type(image, [&](auto type) {
    using T = decltype(type);
    torch::stable::parallel_for(0, layout.samples, row_grain(layout.pixels), [&](int64_t begin, int64_t end) {
      linf_start_cpu(pointer<T>(out), pointer<T>(image), pointer<int64_t>(ids), layout, begin, end, key,
                     limits<T>(0, eps, lo, hi));
    });
  });
  return out;
}
BAT_REGISTER_CPU(random_start, random_start)

#if defined(BAT_FAST_CUDA)

void linf_step_on_cuda(Tensor adv, const Tensor& grad, const Tensor& clean, double step_size, double eps, double lo,
                       double hi) {
  const OnDevice device(adv);
  on_dense(adv, grad, clean, [&](Tensor& a, const Tensor& g, const Tensor& c) {
    const auto launch = [&](auto type, auto grad_type) {
      using T = decltype(type);
      using G = decltype(grad_type);
      linf_step_cuda(pointer<T>(a), pointer<G>(g), pointer<T>(c), a.numel(), limits<float>(step_size, eps, lo, hi),
                     device.stream());
    };
    const auto with_type_of_grad = [&](auto type) {
      with_16bit_type(g, [&](auto grad_type) { launch(type, grad_type); });
    };
    if (a.scalar_type() != ScalarType::Float) {
      with_16bit_type(a, with_type_of_grad);
    } else if (g.scalar_type() != ScalarType::Float) {
      with_type_of_grad(float{});
    } else {
      launch(float{}, float{});
    }
  });
}
BAT_REGISTER_CUDA(linf_step_, linf_step_on_cuda)

Tensor random_start_on_cuda(const Tensor& clean, const Tensor& index, double eps, const std::string& norm,
                            int64_t seed, int64_t draw, double lo, double hi) {
  (void)norm;
  const OnDevice device(clean);
  const bool fits = clean.is_contiguous() || is_channels_last(clean);
  const Tensor image = fits ? clean : torch::stable::contiguous(clean);
  const Tensor ids = torch::stable::contiguous(index);
  Tensor out = torch::stable::empty_like(image);
  const StartKey key = {static_cast<uint64_t>(seed), static_cast<uint32_t>(draw)};
  with_cuda_type(image, [&](auto type) {
    using T = decltype(type);
    linf_start_cuda(pointer<T>(out), pointer<T>(image), pointer<int64_t>(ids), image_layout(image), key,
                    limits<float>(0, eps, lo, hi), device.stream());
  });
  return out;
}
BAT_REGISTER_CUDA(random_start, random_start_on_cuda)

#endif

}  // namespace
}  // namespace bat_fast
