// Soft labels kept across epochs: a moving average of the softmax of each sample of the data set.
#pragma once

#include "kernels/row_loss.h"

namespace bat_fast {

// memory [samples, classes]; logits and targets [rows, classes]; index [rows]. All contiguous.
template <typename T, typename M>
struct Ensemble {
  M* memory;
  const int64_t* index;
  const T* logits;
  M* targets;
  int64_t samples, rows, classes;
  M momentum;
  BAT_HD bool valid(int64_t row) const { return index[row] >= 0 && index[row] < samples; }
};

// m <- momentum m + (1 - momentum) p
template <typename M>
BAT_HD M blend(M momentum, M kept, M probability) {
  return momentum * kept + (1 - momentum) * probability;
}

constexpr int64_t kShards = 64;

// Rows that share an index are applied in the order of the batch, and all get the final row. Threads split the
// indices, not the batch, so that each row of the memory is seen by one thread, in order.
template <typename T>
BAT_CLONES void ensemble_cpu(Ensemble<T, T> e, int64_t begin_shard, int64_t end_shard) {
  const auto mine = [&](int64_t n) BAT_INLINE {
    const int64_t shard = e.index[n] % kShards;
    return e.valid(n) && shard >= begin_shard && shard < end_shard;
  };
  for (int64_t n = 0; n < e.rows; ++n) {
    if (!mine(n)) continue;
    const T* z = e.logits + n * e.classes;
    T* p = e.targets + n * e.classes;
    T* kept = e.memory + e.index[n] * e.classes;
    const T top = largest(z, 0, e.classes);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < e.classes; ++c) {
      p[c] = fast_exp(z[c] - top);
      sum += p[c];
    }
    const T scale = 1 / sum;
    for (int64_t c = 0; c < e.classes; ++c) kept[c] = blend(e.momentum, kept[c], p[c] * scale);
  }
  for (int64_t n = 0; n < e.rows; ++n) {
    T* target = e.targets + n * e.classes;
    if (mine(n)) {
      const T* kept = e.memory + e.index[n] * e.classes;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < e.classes; ++c) sum += kept[c];
      const T scale = 1 / sum;
      for (int64_t c = 0; c < e.classes; ++c) target[c] = kept[c] * scale;
    } else if (!e.valid(n) && begin_shard == 0) {
      for (int64_t c = 0; c < e.classes; ++c) target[c] = T(NAN);
    }
  }
}

// CUDA launcher, in soft_labels.cu; `stream` is a cudaStream_t.
template <typename T>
void ensemble_cuda(Ensemble<T, float> e, void* stream);

}  // namespace bat_fast
