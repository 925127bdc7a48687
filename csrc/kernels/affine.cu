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
  if constexpr (Neighbours) return *reinterpret_cast<const Vector<C, Size>*>(values + c);
  Vector<C, Size> same;
#pragma unroll
  for (int k = 0; k < Size; ++k) same.at[k] = values[c];
  return same;
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

}  // namespace

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
  template void affine_grad_cuda(T*, const T*, const compute_t<T>*, const T*, int64_t, Channels, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(double)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
