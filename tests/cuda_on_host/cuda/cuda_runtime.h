// CUDA's names on the host: enough of cuda_runtime.h for csrc/kernels. Add here what a new kernel uses.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "scheduler.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (cuda_on_host::here().thread)
#define blockIdx (cuda_on_host::here().block)
#define blockDim (cuda_on_host::here().block_dim)
#define gridDim (cuda_on_host::here().grid_dim)
constexpr int warpSize = cuda_on_host::kWarp;

// --- Runtime ---------------------------------------------------------------------------------------------------
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrMultiProcessorCount ? 4 : 99 << 10;  // few processors: several rounds of small grids
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute which, int value) {
  if (which == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    cuda_on_host::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), value);
  }
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int byte, std::size_t bytes, cudaStream_t = nullptr) {
  std::memset(p, byte, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

// --- Threads that meet -----------------------------------------------------------------------------------------
using cuda_on_host::Site;

inline void __syncthreads(Site site = Site::current()) { cuda_on_host::wait_for_block(site); }
inline void __syncwarp(unsigned mask = ~0u, Site site = Site::current()) { cuda_on_host::wait_for_warp(mask, site); }
inline void __threadfence() { cuda_on_host::fence(); }
inline void __threadfence_block() { cuda_on_host::fence(); }
inline void __threadfence_system() { cuda_on_host::fence(); }

// The value of the lane that `source(lane, first, width)` names within the caller's group of `width` lanes, or the
// caller's own where that lane is outside the group, as CUDA has it.
template <typename T, typename Source>
T bat_shuffle(unsigned mask, T value, int width, Source source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const uint64_t* lanes = cuda_on_host::exchange(mask, bits, site);
  const int lane = static_cast<int>(cuda_on_host::here().lane()), first = lane / width * width;
  const int from = source(lane, first);
  bits = lanes[from < first || from >= first + width ? lane : from];
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, Site site = Site::current()) {
  return bat_shuffle(mask, v, width, [=](int lane, int) { return lane ^ lanes; }, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, Site site = Site::current()) {
  return bat_shuffle(mask, v, width, [=](int lane, int) { return lane + static_cast<int>(delta); }, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, Site site = Site::current()) {
  return bat_shuffle(mask, v, width, [=](int lane, int) { return lane - static_cast<int>(delta); }, site);
}
template <typename T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, Site site = Site::current()) {
  return bat_shuffle(mask, v, width, [=](int, int first) { return first + source % width; }, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Site site = Site::current()) {
  const uint64_t* lanes = cuda_on_host::exchange(mask, predicate != 0, site);
  unsigned votes = 0;
  for (unsigned k = 0; k < cuda_on_host::kWarp; ++k) votes |= static_cast<unsigned>(lanes[k] == 1) << k;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return __ballot_sync(mask, !predicate, site) == 0;
}

// --- Atomics: relaxed, as CUDA's are ---------------------------------------------------------------------------
template <typename T, typename Change>
T bat_atomic(T* p, Change change) {
  std::atomic_ref<T> cell(*p);
  T old = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}
template <typename T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return bat_atomic(p, [=](T old) { return static_cast<T>(old + v); });
}
template <typename T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return bat_atomic(p, [=](T old) { return std::max(old, v); });
}
template <typename T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return bat_atomic(p, [=](T old) { return std::min(old, v); });
}
template <typename T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return bat_atomic(p, [=](T old) { return old | v; });
}
template <typename T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return bat_atomic(p, [=](T) { return v; });
}
template <typename T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return bat_atomic(p, [=](T old) { return old == expected ? v : old; });
}

// --- Vectors and math ------------------------------------------------------------------------------------------
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::max;
using std::min;
template <typename T>
T __ldg(const T* p) {
  return *p;
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
