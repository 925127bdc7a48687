// Scale and shift per channel with ReLU, and the gradient at the input. Element math shared by CPU and CUDA, CPU loops,
// CUDA launchers.
#pragma once

#include <type_traits>

#include "kernels/portable.h"

namespace bat_fast {

// Element i of a dense array belongs to channel (i / inner) % count: `inner` is the stride of the channels.
struct Channels {
  int64_t count, inner;
};

// The flags are std::bool_constant in loops, and bool where a branch costs nothing.

// y = x scale + shift, through ReLU on request. NaN stays, as in torch.
template <typename T, typename Flag>
struct Affine {
  using C = compute_t<T>;
  const T* x;
  const C *scale, *shift;
  T* out;
  Flag relu;

  struct Channel {
    C scale, shift;
  };
  BAT_HD Channel channel(int64_t c) const { return {scale[c], shift[c]}; }
  BAT_HD T value(T from, Channel k) const {
    const C z = load(from) * k.scale + k.shift;
    return store<T>(relu ? maximum(z, C(0)) : z);
  }
  BAT_HD void element(int64_t i, Channel k) const { out[i] = value(x[i], k); }
};
template <typename T, typename Flag>
Affine(const T*, const compute_t<T>*, const compute_t<T>*, T*, Flag) -> Affine<T, Flag>;

// g <- g [y > 0] scale + other, with y the output of ReLU. What a flag leaves out is not read.
template <typename T, typename Relu, typename Scaled, typename More>
struct AffineGrad {
  using C = compute_t<T>;
  T* grad;
  const T* y;
  const C* scale;
  const T* other;
  Relu relu;
  Scaled scaled;
  More more;

  struct Channel {
    C scale;
  };
  BAT_HD Channel channel(int64_t c) const { return {scaled ? scale[c] : C(1)}; }
  BAT_HD T value(T g, T at, T rest, Channel k) const {
    if (relu && load(at) <= C(0)) g = T{};
    if (!scaled && !more) return g;  // as it is stored
    const C passed = scaled ? load(g) * k.scale : load(g);
    return store<T>(more ? passed + load(rest) : passed);
  }
  BAT_HD void element(int64_t i, Channel k) const {
    grad[i] = value(grad[i], relu ? y[i] : T{}, more ? other[i] : T{}, k);
  }
};
template <typename T, typename Relu, typename Scaled, typename More>
AffineGrad(T*, const T*, const compute_t<T>*, const T*, Relu, Scaled, More) -> AffineGrad<T, Relu, Scaled, More>;

template <typename Run>
void with_constant(bool flag, Run run) {
  flag ? run(std::true_type{}) : run(std::false_type{});
}

// Elements [begin, end): pixel by pixel where channels are neighbours, else plane by plane.
template <typename F>
BAT_CLONES void over_channels_cpu(int64_t begin, int64_t end, Channels channels, F f) {
  const int64_t count = channels.count, inner = channels.inner;
  if (inner == 1) {
    for (int64_t first = begin / count * count; first < end; first += count) {
      const int64_t from = first < begin ? begin - first : 0, to = end - first < count ? end - first : count;
#pragma omp simd
      for (int64_t c = from; c < to; ++c) f.element(first + c, f.channel(c));
    }
    return;
  }
  for (int64_t plane = begin / inner; plane * inner < end; ++plane) {
    const int64_t first = plane * inner, from = first < begin ? begin : first;
    const int64_t to = first + inner < end ? first + inner : end;
    const auto channel = f.channel(plane % count);
#pragma omp simd
    for (int64_t i = from; i < to; ++i) f.element(i, channel);
  }
}

// CUDA launchers, in affine.cu; `stream` is a cudaStream_t.
template <typename T>
void affine_cuda(const T* x, const compute_t<T>* scale, const compute_t<T>* shift, T* out, int64_t count,
                 Channels channels, bool relu, void* stream);
// y, scale and other may be null: that part is left out.
template <typename T>
void affine_grad_cuda(T* grad, const T* y, const compute_t<T>* scale, const T* other, int64_t count, Channels channels,
                      void* stream);

}  // namespace bat_fast
