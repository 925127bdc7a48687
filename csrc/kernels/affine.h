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

// A block of a residual network in one pass: x <- x + other, y = max(x scale + shift, 0), and a bit for each element of
// y, in the order of memory: of y its gradient needs no more, and that is an eighth or a sixteenth of the bytes.
template <typename T>
struct AffineRelu {
  using C = compute_t<T>;
  T* x;
  const T* other;  // null: x stays
  const C *scale, *shift;
  T* y;
  uint8_t* bits;

  BAT_HD T sum(T a, T b) const { return store<T>(load(a) + load(b)); }
  BAT_HD T value(T from, C k, C add) const { return store<T>(maximum(load(from) * k + add, C(0))); }
  BAT_HD static bool passes(T at) { return !(load(at) <= C(0)); }  // NaN does
  BAT_HD bool element(int64_t i, int64_t c) const {
    if (other != nullptr) x[i] = sum(x[i], other[i]);
    y[i] = value(x[i], scale[c], shift[c]);
    return passes(y[i]);
  }
};

// g <- g [its bit] scale + other.
template <typename T>
struct AffineReluGrad {
  using C = compute_t<T>;
  T* grad;
  const uint8_t* bits;
  const C* scale;
  const T* other;  // null: 0

  BAT_HD T value(T g, bool passes, C k, T rest) const {
    const C passed = (passes ? load(g) : C(0)) * k;
    return store<T>(other == nullptr ? passed : passed + load(rest));
  }
  BAT_HD bool element(int64_t i, int64_t c) const {
    const bool passes = bits[i / 8] >> (i % 8) & 1;
    grad[i] = value(grad[i], passes, scale[c], other == nullptr ? T{} : other[i]);
    return passes;
  }
};

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

// Bit k is flag k: a product moves all eight at once.
BAT_HD uint8_t packed_flags(const uint8_t (&flags)[8]) {
  uint64_t all = 0;
  for (int k = 0; k < 8; ++k) all |= static_cast<uint64_t>(flags[k]) << (8 * k);
  return static_cast<uint8_t>(all * 0x0102040810204080 >> 56);
}

// Bytes [begin, end) of the bits of `count` elements, and the elements that belong to them.
template <typename T>
BAT_CLONES void affine_relu_cpu(int64_t begin, int64_t end, int64_t count, Channels channels, AffineRelu<T> f) {
  const int64_t first = begin * 8, last = end * 8 < count ? end * 8 : count;
  if (f.other != nullptr) {
#pragma omp simd
    for (int64_t i = first; i < last; ++i) f.x[i] = f.sum(f.x[i], f.other[i]);
  }
  over_channels_cpu(first, last, channels, Affine{f.x, f.scale, f.shift, f.y, std::true_type{}});
  for (int64_t byte = begin; byte < end; ++byte) {
    uint8_t flags[8] = {};
    const int64_t inside = last - byte * 8;
    if (inside >= 8) {
      for (int k = 0; k < 8; ++k) flags[k] = f.passes(f.y[byte * 8 + k]);
    } else {
      for (int64_t k = 0; k < inside; ++k) flags[k] = f.passes(f.y[byte * 8 + k]);
    }
    f.bits[byte] = packed_flags(flags);
  }
}

template <typename T>
BAT_CLONES void affine_relu_grad_cpu(int64_t begin, int64_t end, int64_t count, Channels channels,
                                     AffineReluGrad<T> f) {
  const int64_t first = begin * 8, last = end * 8 < count ? end * 8 : count;
  for (int64_t byte = begin; byte < end; ++byte) {
    const unsigned bits = f.bits[byte];
    T* const g = f.grad + byte * 8;
    if (last - byte * 8 >= 8) {
      for (int k = 0; k < 8; ++k) g[k] = bits >> k & 1 ? g[k] : T{};
    } else {
      for (int64_t k = 0; k < last - byte * 8; ++k) g[k] = bits >> k & 1 ? g[k] : T{};
    }
  }
  with_constant(f.other != nullptr, [&](auto more) {
    const std::bool_constant<false> relu;
    over_channels_cpu(
        first, last, channels,
        AffineGrad{f.grad, static_cast<const T*>(nullptr), f.scale, f.other, relu, std::true_type{}, more});
  });
}

// CUDA launchers, in affine.cu; `stream` is a cudaStream_t.
template <typename T>
void affine_cuda(const T* x, const compute_t<T>* scale, const compute_t<T>* shift, T* out, int64_t count,
                 Channels channels, bool relu, void* stream);
// y, scale and other may be null: that part is left out.
template <typename T>
void affine_grad_cuda(T* grad, const T* y, const compute_t<T>* scale, const T* other, int64_t count, Channels channels,
                      void* stream);

// `other` may be null in both.
template <typename T>
void affine_relu_cuda(AffineRelu<T> f, int64_t count, Channels channels, void* stream);
template <typename T>
void affine_relu_grad_cuda(AffineReluGrad<T> f, int64_t count, Channels channels, void* stream);

}  // namespace bat_fast
