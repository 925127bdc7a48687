// Training losses of one row of logits per sample. Element math shared by CPU and CUDA, CPU loops over rows, CUDA
// launchers. The forward pass saves two numbers per row; the backward pass reads the logits again. That is one pass
// over memory less than saving the gradient, and N * C less memory.
#pragma once

#include <limits>

#include "kernels/softmax.h"

namespace bat_fast {

// --- Weighted cross-entropy of BAT -------------------------------------------------------------------------------

// What the weight needs of a row: the largest logit before, at and after the label. A larger value may stand for
// `before` and `after` where it decides nothing.
template <typename T>
struct RowMaxima {
  T before, label, after;
  BAT_HD T other() const { return maximum(before, after); }
  BAT_HD T all() const { return maximum(other(), label); }
  // argmax == label, ties going to the first, as in torch.argmax.
  BAT_HD bool correct() const { return label > before && label >= after; }
};

// w = exp(-alpha q) for a sample predicted wrongly, with q the largest probability of another class; else 1. At least
// the smallest normal number, so that the weights of a batch can be divided by their sum; NaN stays.
template <typename T>
BAT_HD T bat_weight(const RowMaxima<T>& m, const RowNorm<T>& norm, T alpha) {
  constexpr T least = std::numeric_limits<T>::min();
  const T w = fast_exp(-alpha * norm.probability(m.other()));
  return m.correct() ? T(1) : w < least ? least : w;
}

template <typename T>
BAT_HD RowMaxima<T> row_maxima_cpu(const T* z, int32_t classes, int32_t y) {
  T other = -T(INFINITY);
#pragma omp simd reduction(max : other)
  for (int32_t c = 0; c < classes; ++c) {
    const T v = c == y ? -T(INFINITY) : z[c];
    other = v > other ? v : other;
  }
  return {other == z[y] ? largest(z, 0, y) : other, z[y], other};
}

template <typename T>
BAT_CLONES void bat_rows_cpu(Logits<T> in, T alpha, T* __restrict__ weights, T* __restrict__ per_sample,
                             RowNorm<T>* __restrict__ norm, int64_t begin, int64_t end) {
  PaddedRow<T> copy;
  const int64_t width = padded_width(in.classes);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t y = in.target[n];
    if (!valid_label(y, in.classes)) {
      weights[n] = per_sample[n] = norm[n].top = norm[n].log_sum = T(NAN);
      continue;
    }
    const T* z = copy.fill(in.data + n * in.classes, in.classes, width, -T(INFINITY));
    const RowMaxima<T> m = row_maxima_cpu(z, static_cast<int32_t>(width), static_cast<int32_t>(y));
    norm[n] = {m.all(), fast_log(sum_exp(z, width, m.all()))};
    per_sample[n] = norm[n].cross_entropy(z[y]);
    weights[n] = bat_weight(m, norm[n], alpha);
  }
}

// grad = scale w_i (softmax(z_i) - onehot(y_i)), from the saved normaliser.
template <typename T>
BAT_CLONES void bat_backward_cpu(Logits<T> in, const T* weights, const RowNorm<T>* norm, T scale, T* __restrict__ grad,
                                 int64_t begin, int64_t end) {
  PaddedRow<T> copy, result;
  const int64_t width = padded_width(in.classes);
  for (int64_t n = begin; n < end; ++n) {
    const T* z = copy.fill(in.data + n * in.classes, in.classes, width, -T(INFINITY));
    T* g = result.space(grad + n * in.classes, in.classes, width);
    const T s = scale * weights[n];
    const RowNorm<T> row = norm[n];
    for (int64_t c = 0; c < width; ++c) g[c] = s * row.probability(z[c]);
    if (valid_label(in.target[n], in.classes)) g[in.target[n]] -= s;
    result.store(grad + n * in.classes, in.classes, width);
  }
}

// --- Squared distance to soft targets: temporal ensembling ---------------------------------------------------------

// mean_c (p_c - t_c)^2 of each row, and its gradient times `scale`.
template <typename T>
BAT_CLONES void soft_target_cpu(Logits<T> in, const T* soft, T scale, T* __restrict__ per_sample, T* __restrict__ grad,
                                int64_t begin, int64_t end) {
  PaddedRow<T> copy, soft_copy, result;
  const int64_t width = padded_width(in.classes);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t start = n * in.classes;
    const T* z = copy.fill(in.data + start, in.classes, width, -T(INFINITY));
    const T* t = soft_copy.fill(soft + start, in.classes, width, T(0));
    T* g = result.space(grad + start, in.classes, width);
    const RowNorm<T> norm = row_norm(z, width);
    T mean_difference = 0, square = 0;
#pragma omp simd reduction(+ : mean_difference, square)
    for (int64_t c = 0; c < width; ++c) {
      g[c] = norm.probability(z[c]);
      mean_difference += g[c] * (g[c] - t[c]);
      square += (g[c] - t[c]) * (g[c] - t[c]);
    }
    const T share = T(1) / static_cast<T>(in.classes);
    for (int64_t c = 0; c < width; ++c) g[c] = soft_grad(g[c], t[c], mean_difference, scale * share);
    result.store(grad + start, in.classes, width);
    per_sample[n] = square * share;
  }
}

// CUDA launchers, in row_loss.cu; `stream` is a cudaStream_t.
template <typename T>
void bat_rows_cuda(Logits<T> in, float alpha, bool by_weights, float* weights, float* per_sample, RowNorm<float>* norm,
                   float* loss, float* total, LabelError* error, void* stream);
template <typename T>
void bat_backward_cuda(Logits<T> in, const float* weights, const RowNorm<float>* norm, const float* grad_loss,
                       const float* total, T* grad, void* stream);
template <typename T>
void soft_target_cuda(Logits<T> in, const T* soft, float scale, float* per_sample, float* loss, T* grad, void* stream);

}  // namespace bat_fast
