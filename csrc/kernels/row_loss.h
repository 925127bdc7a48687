// Losses of one row of logits per sample. Element math for both twins, CPU loops over rows, CUDA launchers.
#pragma once

#include "kernels/portable.h"

namespace bat_fast {

// A label outside [0, classes) gives NaN in its row and, on CUDA, is reported here, in memory that the host reads
// without waiting for the device.
struct LabelError {
  int32_t seen;  // 1 when the rest is complete
  int32_t classes;
  int64_t row, label;
};

// The logits of a batch, [rows, classes], contiguous.
template <typename T>
struct Logits {
  const T* data;
  const int64_t* target;
  int64_t rows, classes;
};

// What the weight of BAT needs of a row: the largest logit before, at and after the label.
template <typename T>
struct RowMaxima {
  T before, label, after;
  BAT_HD T other() const { return maximum(before, after); }
  BAT_HD T all() const { return maximum(other(), label); }
  // argmax == label, ties going to the first, as in torch.argmax.
  BAT_HD bool correct() const { return label > before && label >= after; }
};

// What softmax needs of a row: p_c = exp((z_c - top) - log_sum). Kept apart, since their sum loses the fraction of
// large logits.
template <typename T>
struct RowNorm {
  T top, log_sum;
  BAT_HD T probability(T z) const { return fast_exp((z - top) - log_sum); }
  BAT_HD T cross_entropy(T z_label) const { return log_sum + (top - z_label); }
};

// w = exp(-alpha q) for a sample predicted wrongly, with q the largest probability of another class; else 1.
template <typename T>
BAT_HD T bat_weight(const RowMaxima<T>& m, const RowNorm<T>& norm, T alpha) {
  return m.correct() ? T(1) : fast_exp(-alpha * norm.probability(m.other()));
}

template <typename T>
BAT_HD T largest(const T* z, int64_t begin, int64_t end) {
  T m = -T(INFINITY);
#pragma omp simd reduction(max : m)
  for (int64_t c = begin; c < end; ++c) m = z[c] > m ? z[c] : m;
  return m;
}

template <typename T>
BAT_HD T sum_exp(const T* z, int64_t classes, T top) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < classes; ++c) sum += fast_exp(z[c] - top);
  return sum;
}

BAT_HD bool valid_label(int64_t label, int64_t classes) { return label >= 0 && label < classes; }

// grad = +-(softmax(z) - onehot(y)), per_sample = +-CE; the sign is -1 for a targeted attack.
template <typename T>
BAT_CLONES void ce_grad_cpu(Logits<T> in, T sign, T* __restrict__ grad, T* __restrict__ per_sample, int64_t begin,
                            int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    const T* z = in.data + n * in.classes;
    T* g = grad + n * in.classes;
    const int64_t y = in.target[n];
    if (!valid_label(y, in.classes)) {
      for (int64_t c = 0; c < in.classes; ++c) g[c] = T(NAN);
      per_sample[n] = T(NAN);
      continue;
    }
    const T top = largest(z, 0, in.classes);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < in.classes; ++c) {
      g[c] = fast_exp(z[c] - top);
      sum += g[c];
    }
    const T scale = sign / sum;
    for (int64_t c = 0; c < in.classes; ++c) g[c] *= scale;
    g[y] -= sign;
    per_sample[n] = sign * (std::log(sum) + (top - z[y]));
  }
}

// The rows of BAT: weight, cross-entropy and normaliser of each sample.
template <typename T>
BAT_CLONES void bat_rows_cpu(Logits<T> in, T alpha, T* __restrict__ weights, T* __restrict__ per_sample,
                             RowNorm<T>* __restrict__ norm, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    const T* z = in.data + n * in.classes;
    const int64_t y = in.target[n];
    if (!valid_label(y, in.classes)) {
      weights[n] = per_sample[n] = norm[n].top = norm[n].log_sum = T(NAN);
      continue;
    }
    const RowMaxima<T> m = {largest(z, 0, y), z[y], largest(z, y + 1, in.classes)};
    norm[n] = {m.all(), std::log(sum_exp(z, in.classes, m.all()))};
    per_sample[n] = norm[n].cross_entropy(z[y]);
    weights[n] = bat_weight(m, norm[n], alpha);
  }
}

// grad = scale_i (softmax(z_i) - onehot(y_i)), from the saved normaliser.
template <typename T>
BAT_CLONES void ce_backward_cpu(Logits<T> in, const RowNorm<T>* norm, const T* scale, T* __restrict__ grad,
                                int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    const T* z = in.data + n * in.classes;
    T* g = grad + n * in.classes;
    const T s = scale[n];
    const RowNorm<T> row = norm[n];
    for (int64_t c = 0; c < in.classes; ++c) g[c] = s * row.probability(z[c]);
    if (valid_label(in.target[n], in.classes)) g[in.target[n]] -= s;
  }
}

// sum_i w_i CE_i / sum_i w_i, or / N; in double, since a batch is short and the order must not matter much.
template <typename T>
T weighted_mean_cpu(const T* weights, const T* values, int64_t count, bool by_weights) {
  double total = 0, weight = 0;
  for (int64_t n = 0; n < count; ++n) {
    total += static_cast<double>(weights[n]) * values[n];
    weight += weights[n];
  }
  return static_cast<T>(total / (by_weights ? weight : static_cast<double>(count)));
}

// CUDA launchers, in row_loss.cu; `stream` is a cudaStream_t.
template <typename T>
void ce_grad_cuda(Logits<T> in, float sign, T* grad, float* per_sample, LabelError* error, void* stream);
template <typename T>
void bat_rows_cuda(Logits<T> in, float alpha, bool by_weights, float* weights, float* per_sample, RowNorm<float>* norm,
                   float* loss, LabelError* error, void* stream);
template <typename T>
void ce_backward_cuda(Logits<T> in, const RowNorm<float>* norm, const float* scale, T* grad, void* stream);

}  // namespace bat_fast
