// Elementwise kernels with 16-byte accesses where a vector lies in one plane, or holds whole runs of channels.
#include "kernels/affine.h"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;

__device__ int64_t channel_at(int64_t i, const Channels& channels) {
  if (i >> 32 == 0 && (channels.inner | channels.count) >> 32 == 0) {  // 64-bit divisions take 100 instructions
    return static_cast<uint32_t>(i) / static_cast<uint32_t>(channels.inner) % static_cast<uint32_t>(channels.count);
  }
  return i / channels.inner % channels.count;
}

// The constants of `Size` neighbouring elements that begin with channel c.
template <int Size, bool Neighbours, typename C>
__device__ Vector<C, Size> constants(const C* values, int64_t c) {
  if constexpr (Neighbours) {
    return *reinterpret_cast<const Vector<C, Size>*>(values + c);
  } else {
    Vector<C, Size> same;
#pragma unroll
    for (int k = 0; k < Size; ++k) same.at[k] = values[c];
    return same;
  }
}

template <int Size, bool Neighbours, typename T>
__device__ void run(const Affine<T, bool>& f, int64_t i, int64_t c) {
  using Wide = Vector<T, Size>;
  const auto scale = constants<Size, Neighbours>(f.scale, c), shift = constants<Size, Neighbours>(f.shift, c);
  Wide v = reinterpret_cast<const Wide*>(f.x)[i];
#pragma unroll
  for (int k = 0; k < Size; ++k) v.at[k] = f.value(v.at[k], {scale.at[k], shift.at[k]});
  reinterpret_cast<Wide*>(f.out)[i] = v;
}

template <int Size, bool Neighbours, typename T>
__device__ void run(const AffineGrad<T, bool, bool, bool>& f, int64_t i, int64_t c) {
  using Wide = Vector<T, Size>;
  Vector<compute_t<T>, Size> scale = {};
  if (f.scaled) scale = constants<Size, Neighbours>(f.scale, c);
  Wide y = {}, other = {};
  if (f.relu) y = reinterpret_cast<const Wide*>(f.y)[i];
  if (f.more) other = reinterpret_cast<const Wide*>(f.other)[i];
  Wide g = reinterpret_cast<const Wide*>(f.grad)[i];
#pragma unroll
  for (int k = 0; k < Size; ++k) g.at[k] = f.value(g.at[k], y.at[k], other.at[k], {scale.at[k]});
  reinterpret_cast<Wide*>(f.grad)[i] = g;
}

template <int Size, bool Neighbours, typename F>
__global__ void channels_kernel(F f, int64_t vectors, Channels channels) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < vectors) run<Size, Neighbours>(f, i, channel_at(i * Size, channels));
}

template <int Size, bool Neighbours, typename F>
void launch(const F& f, int64_t count, Channels channels, void* stream) {
  const int64_t vectors = count / Size;
  const auto blocks = static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
  channels_kernel<Size, Neighbours><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(f, vectors, channels);
}

template <typename T, typename F>
void over_channels(const F& f, bool all_aligned, int64_t count, Channels channels, void* stream) {
  constexpr int kSize = kWidest<T>;
  if (count == 0) return;
  if (all_aligned && channels.inner % kSize == 0) return launch<kSize, false>(f, count, channels, stream);
  if (all_aligned && channels.inner == 1 && channels.count % kSize == 0) {
    return launch<kSize, true>(f, count, channels, stream);
  }
  launch<1, false>(f, count, channels, stream);
}

// A thread for each byte of bits: eight elements, in one access or two.
constexpr int kByte = 8;

template <bool Neighbours, typename T>
__device__ void run_byte(const AffineRelu<T>& f, int64_t i, int64_t c) {
  using Wide = Vector<T, kByte>;
  const auto scale = constants<kByte, Neighbours>(f.scale, c), shift = constants<kByte, Neighbours>(f.shift, c);
  Wide v = reinterpret_cast<const Wide*>(f.x)[i];
  if (f.other != nullptr) {
    const Wide other = reinterpret_cast<const Wide*>(f.other)[i];
#pragma unroll
    for (int k = 0; k < kByte; ++k) v.at[k] = f.sum(v.at[k], other.at[k]);
    reinterpret_cast<Wide*>(f.x)[i] = v;
  }
  unsigned bits = 0;
#pragma unroll
  for (int k = 0; k < kByte; ++k) {
    v.at[k] = f.value(v.at[k], scale.at[k], shift.at[k]);
    bits |= static_cast<unsigned>(f.passes(v.at[k])) << k;
  }
  reinterpret_cast<Wide*>(f.y)[i] = v;
  f.bits[i] = static_cast<uint8_t>(bits);
}

template <bool Neighbours, typename T>
__device__ void run_byte(const AffineReluGrad<T>& f, int64_t i, int64_t c) {
  using Wide = Vector<T, kByte>;
  const auto scale = constants<kByte, Neighbours>(f.scale, c);
  const unsigned bits = f.bits[i];
  Wide g = reinterpret_cast<const Wide*>(f.grad)[i], other = {};
  if (f.other != nullptr) other = reinterpret_cast<const Wide*>(f.other)[i];
#pragma unroll
  for (int k = 0; k < kByte; ++k) g.at[k] = f.value(g.at[k], bits >> k & 1, scale.at[k], other.at[k]);
  reinterpret_cast<Wide*>(f.grad)[i] = g;
}

__device__ void keep_bits(uint8_t* to, unsigned bits) { *to = static_cast<uint8_t>(bits); }
__device__ void keep_bits(const uint8_t*, unsigned) {}  // the gradient reads them

template <bool Vectors, bool Neighbours, typename F>
__global__ void bytes_kernel(F f, int64_t count, Channels channels) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i * kByte >= count) return;
  if constexpr (Vectors) {
    run_byte<Neighbours>(f, i, channel_at(i * kByte, channels));
  } else {
    unsigned bits = 0;
    for (int64_t at = i * kByte; at < count && at < (i + 1) * kByte; ++at) {
      bits |= static_cast<unsigned>(f.element(at, channel_at(at, channels))) << (at % kByte);
    }
    keep_bits(f.bits + i, bits);
  }
}

template <typename F>
void over_bytes(const F& f, bool all_aligned, int64_t count, Channels channels, void* stream) {
  if (count == 0) return;
  const auto blocks = static_cast<unsigned>(((count + kByte - 1) / kByte + kThreads - 1) / kThreads);
  const auto start = [&](auto kernel) {
    kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(f, count, channels);
  };
  if (all_aligned && channels.inner % kByte == 0) return start(bytes_kernel<true, false, F>);
  if (all_aligned && channels.inner == 1 && channels.count % kByte == 0) return start(bytes_kernel<true, true, F>);
  start(bytes_kernel<false, false, F>);
}

}  // namespace

template <typename T>
void affine_relu_cuda(AffineRelu<T> f, int64_t count, Channels channels, void* stream) {
  const bool all = aligned<kByte>(f.x) && aligned<kByte>(f.other) && aligned<kByte>(f.y) && aligned<kByte>(f.scale) &&
                   aligned<kByte>(f.shift);
  over_bytes(f, all, count, channels, stream);
}

template <typename T>
void affine_relu_grad_cuda(AffineReluGrad<T> f, int64_t count, Channels channels, void* stream) {
  const bool all = aligned<kByte>(f.grad) && aligned<kByte>(f.other) && aligned<kByte>(f.scale);
  over_bytes(f, all, count, channels, stream);
}

template <typename T>
void affine_cuda(const T* x, const compute_t<T>* scale, const compute_t<T>* shift, T* out, int64_t count,
                 Channels channels, bool relu, void* stream) {
  constexpr int kSize = kWidest<T>;
  const bool all = aligned<kSize>(x) && aligned<kSize>(out) && aligned<kSize>(scale) && aligned<kSize>(shift);
  over_channels<T>(Affine<T, bool>{x, scale, shift, out, relu}, all, count, channels, stream);
}

template <typename T>
void affine_grad_cuda(T* grad, const T* y, const compute_t<T>* scale, const T* other, int64_t count, Channels channels,
                      void* stream) {
  constexpr int kSize = kWidest<T>;
  const AffineGrad<T, bool, bool, bool> f = {
      grad, y, scale, other, y != nullptr, scale != nullptr, other != nullptr,
  };
  const bool all = aligned<kSize>(grad) && aligned<kSize>(y) && aligned<kSize>(scale) && aligned<kSize>(other);
  over_channels<T>(f, all, count, channels, stream);
}

#define BAT_INSTANTIATE(T)                                                                                           \
  template void affine_cuda(const T*, const compute_t<T>*, const compute_t<T>*, T*, int64_t, Channels, bool, void*); \
  template void affine_grad_cuda(T*, const T*, const compute_t<T>*, const T*, int64_t, Channels, void*);             \
  template void affine_relu_cuda(AffineRelu<T>, int64_t, Channels, void*);                                           \
  template void affine_relu_grad_cuda(AffineReluGrad<T>, int64_t, Channels, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(double)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
