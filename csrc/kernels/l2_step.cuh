// The step in l2 on CUDA: a block per sample, or per chunk of a larger one.
#pragma once

#include "kernels/perturb.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace bat_fast {
namespace {

constexpr int kSampleThreads = 512;
constexpr int kHeld = 24;                            // elements that a thread keeps in registers
constexpr int64_t kOnChip = kSampleThreads * kHeld;  // 3 x 64 x 64
constexpr int64_t kChunk = 32 * kSampleThreads;      // of a larger sample, per block

__device__ void add(L2Sums<float>& sums, float d, float g) {
  sums.gg += g * g;
  sums.dg += d * g;
  sums.dd += d * d;
}

template <typename Team>
__device__ L2Sums<float> total(const Team& team, const L2Sums<float>& sums) {
  return {team.reduce(sums.gg, Sum{}), team.reduce(sums.dg, Sum{}), team.reduce(sums.dd, Sum{}), sums.unit};
}

// While the norms are summed the differences wait in registers and the gradients in shared memory, each where its
// thread put it. The clean image is read again, from the cache: held too, it would leave no room for a second block,
// whose reads go on while this one writes.
template <int Size, typename T, typename G>
__global__ void __launch_bounds__(kSampleThreads, 2)
    l2_step_kernel(T* adv, const G* grad, const T* clean, int pixels, StepLimits<float> s) {
  extern __shared__ __align__(32) float gradient[];
  const BlockTeam<kSampleThreads> team;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * pixels;
  adv += start;
  grad += start;
  clean += start;
  constexpr bool held = Size > 1;  // what is not aligned is read again
  float d[held ? kHeld : 1];
  const auto each = [&](auto visit) {  // visit(k, p): d[k] is of pixel p, and so on for `Size` of them
    if constexpr (held) {
#pragma unroll
      for (int k = 0; k < kHeld; k += Size) {
        const int p = k * kSampleThreads + static_cast<int>(threadIdx.x) * Size;
        if (p < pixels) visit(k, p);
      }
    } else {
      for (int p = threadIdx.x; p < pixels; p += kSampleThreads) visit(0, p);
    }
  };
  const auto difference = [&](int k, int p) { return held ? d[k] : load(adv[p]) - load(clean[p]); };
  L2Sums<float> sums = {0.0f, 0.0f, 0.0f, 1.0f};
  each([&](int k, int p) {
    const auto a = *reinterpret_cast<const Vector<T, Size>*>(adv + p);
    const auto x = *reinterpret_cast<const Vector<T, Size>*>(clean + p);
    const auto v = *reinterpret_cast<const Vector<G, Size>*>(grad + p);
#pragma unroll
    for (int j = 0; j < Size; ++j) {
      const float moved = load(a.at[j]) - load(x.at[j]);
      if (held) d[k + j] = moved;
      gradient[p + j] = load(v.at[j]);
      add(sums, moved, load(v.at[j]));
    }
  });
  sums = total(team, sums);
  float share = 1.0f;
  if (!exact_squares(sums.gg)) {  // the same for the whole block
    float most = 0.0f;
    for (int p = threadIdx.x * Size; p < pixels; p += kSampleThreads * Size) {
      for (int j = 0; j < Size; ++j) most = maximum(most, fabsf(gradient[p + j]));
    }
    most = team.reduce(most, Max{});
    if (most > 0.0f) {
      // In units of about the largest, a power of two: no digit is lost, and no division is needed. Infinity gives NaN.
      const uint32_t exponent = bits_as<uint32_t>(most) & 0x7f800000u, least = 0x00800000u, highest = 0x7e800000u;
      const uint32_t unit = exponent < least ? least : exponent < highest ? exponent : highest;
      share = most == INFINITY ? 0.0f : bits_as<float>(0x7f000000u - unit);
      sums = {0.0f, 0.0f, 0.0f, bits_as<float>(unit)};
      each([&](int k, int p) {
#pragma unroll
        for (int j = 0; j < Size; ++j) add(sums, difference(k + j, p + j), gradient[p + j] * share);
      });
      sums = total(team, sums);
    }
  }
  const L2Factors<float> f = l2_factors(sums, s);
  each([&](int k, int p) {
    const auto x = *reinterpret_cast<const Vector<T, Size>*>(clean + p);
    Vector<T, Size> a;
#pragma unroll
    for (int j = 0; j < Size; ++j) {
      a.at[j] = store<T>(l2_moved(difference(k + j, p + j), gradient[p + j] * share, load(x.at[j]), f, s));
    }
    *reinterpret_cast<Vector<T, Size>*>(adv + p) = a;
  });
}

// Larger samples: the sums of each chunk, then the step of each chunk, which adds up its sample's sums.
template <typename T, typename G>
__global__ void __launch_bounds__(kSampleThreads)
    l2_sums_kernel(const T* adv, const G* grad, const T* clean, int64_t pixels, L2Sums<float>* chunks) {
  const BlockTeam<kSampleThreads> team;
  const int64_t start = static_cast<int64_t>(blockIdx.y) * pixels, first = static_cast<int64_t>(blockIdx.x) * kChunk;
  const int64_t end = first + kChunk < pixels ? first + kChunk : pixels;
  L2Sums<float> sums = {0.0f, 0.0f, 0.0f, 1.0f};
  const auto sum_up = [&](float unit) {
    sums = {0.0f, 0.0f, 0.0f, unit};
    for (int64_t p = first + threadIdx.x; p < end; p += kSampleThreads) {
      add(sums, load(adv[start + p]) - load(clean[start + p]), load(grad[start + p]) / unit);
    }
    sums = total(team, sums);
  };
  sum_up(1.0f);
  if (!exact_squares(sums.gg)) {
    float most = 0.0f;
    for (int64_t p = first + threadIdx.x; p < end; p += kSampleThreads) {
      most = maximum(most, fabsf(load(grad[start + p])));
    }
    most = team.reduce(most, Max{});
    if (most > 0.0f) sum_up(most);
  }
  if (threadIdx.x == 0) chunks[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = sums;
}

template <typename T, typename G>
__global__ void __launch_bounds__(kSampleThreads) l2_apply_kernel(T* adv, const G* grad, const T* clean, int64_t pixels,
                                                                  const L2Sums<float>* chunks, StepLimits<float> s) {
  const BlockTeam<kSampleThreads> team;
  const int64_t start = static_cast<int64_t>(blockIdx.y) * pixels, first = static_cast<int64_t>(blockIdx.x) * kChunk;
  const int64_t end = first + kChunk < pixels ? first + kChunk : pixels;
  L2Sums<float> sums = {0.0f, 0.0f, 0.0f, 1.0f};
  chunks += static_cast<int64_t>(blockIdx.y) * gridDim.x;
  float unit = 0.0f;  // the largest of those that count a gradient at all
  for (unsigned c = threadIdx.x; c < gridDim.x; c += kSampleThreads) {
    if (chunks[c].gg != 0.0f) unit = maximum(unit, chunks[c].unit);
  }
  unit = team.reduce(unit, Max{});
  if (unit == 0.0f) unit = 1.0f;
  for (unsigned c = threadIdx.x; c < gridDim.x; c += kSampleThreads) {
    const L2Sums<float> part = chunks[c];
    const float r = part.gg != 0.0f ? part.unit / unit : 0.0f;
    sums = {sums.gg + part.gg * r * r, sums.dg + part.dg * r, sums.dd + part.dd, unit};
  }
  const L2Factors<float> f = l2_factors(total(team, sums), s);
  for (int64_t p = first + threadIdx.x; p < end; p += kSampleThreads) {
    const float x = load(clean[start + p]);
    adv[start + p] = store<T>(l2_moved(load(adv[start + p]) - x, load(grad[start + p]) / unit, x, f, s));
  }
}

int64_t chunks_of(int64_t pixels) { return (pixels + kChunk - 1) / kChunk; }

}  // namespace
}  // namespace bat_fast
