// The smallest operator, to copy: out = scale x. Element math shared by CPU and CUDA, CPU loop, CUDA launcher.
//
// Lay this folder over a checkout and replace `null` by your word, in the names of the files and in their text: the
// build and the package find the rest. No header here knows torch, so that other programs can use the kernels too.
#pragma once

#include "kernels/portable.h"

namespace bat_fast {

// The mathematics of one element, once for both devices. T is float or double; 16 bits are computed in float.
template <typename T>
BAT_HD T null_scaled(T x, T scale) {
  return scale * x;
}

// Elements [begin, end): the binding shares the tensor out among threads. BAT_CLONES compiles the loop for every
// generation of processors, and __restrict__ lets it vectorise.
template <typename T>
BAT_CLONES void null_scale_cpu(const T* __restrict__ x, T scale, T* __restrict__ out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) out[i] = null_scaled(x[i], scale);
}

// CUDA launcher, in null.cu. `stream` is a cudaStream_t, whose header is not needed here.
template <typename T>
void null_scale_cuda(const T* x, float scale, T* out, int64_t count, void* stream);

}  // namespace bat_fast
