// Losses of a clean and an adversarial row of logits: the KL of TRADES, and MART. Element math shared by CPU and CUDA,
// the CPU loop, the CUDA launcher. Value and both gradients come from one visit of the row.
#pragma once

#include "kernels/softmax.h"

namespace bat_fast {

// MART: CE(z', y) - log(1.0001 - m + 1e-12) + beta KL (1.0000001 - p_y), with m = max_{t != y} p'_t and
// KL = sum_c p_c (log p_c - log(p'_c + 1e-12)). TRADES: KL without the 1e-12, and nothing else.
template <typename T, bool kMart>
struct Pair {
  RowNorm<T> clean, adv;
  T beta;
  int64_t label, other;  // y and the class of m
  T clean_label, adv_other;
  // Sums over the row. The rests are 1 - p_y and 1 - m: subtracting from 1 would leave their rounding errors alone.
  T kl, pulled, clean_rest, adv_rest;

  // Of one class, with p and q its probabilities. No struct holds them, as that would keep loops from vectorising.
  BAT_HD T log_adv(T z_adv, T q) const { return kMart ? fast_log(q + T(1e-12)) : adv.log_probability(z_adv); }
  BAT_HD T log_ratio(T z, T z_adv, T q) const { return clean.log_probability(z) - log_adv(z_adv, q); }

  BAT_HD void set_classes(int64_t y, int64_t t, T z_label, T z_adv_other) {
    label = y;
    other = t;
    clean_label = clean.probability(z_label);
    adv_other = t < 0 ? T(0) : adv.probability(z_adv_other);
  }
  BAT_HD T kl_term(T p, T ratio) const { return p > T(0) ? p * ratio : p * T(0); }  // p may be NaN
  // The part of p that the KL pulls towards; all of it without the 1e-12.
  BAT_HD T pull(T p, T q) const { return kMart ? p * q / (q + T(1e-12)) : p; }
  BAT_HD T kl_weight() const { return kMart ? beta * (clean_rest + T(1e-7)) : T(1); }
  BAT_HD T margin() const { return adv_rest + (T(1e-4) + T(1e-12)); }
  BAT_HD T value(T z_adv_label) const {
    return (kMart ? adv.cross_entropy(z_adv_label) - std::log(margin()) : T(0)) + kl_weight() * kl;
  }
  BAT_HD T grad_adv(T p, T q, bool at_label, bool at_other) const {
    const T g = kl_weight() * (q * pulled - pull(p, q));
    return kMart ? g + (q - T(at_label) + adv_other / margin() * (at_other ? adv_rest : -q)) : g;
  }
  BAT_HD T grad_clean(T p, T ratio, bool at_label) const {
    const T g = p > T(0) ? kl_weight() * p * (ratio - kl) : p * T(0);
    return kMart ? g - beta * kl * clean_label * (at_label ? clean_rest : -p) : g;
  }
};

// The largest entry of a row but for the label's, the first of equal ones. A row with a NaN may have none.
template <typename T>
BAT_HD Ranked<T> largest_other(const T* z, int64_t classes, int64_t label) {
  const T before = largest(z, 0, label), after = largest(z, label + 1, classes);
  const T value = maximum(before, after);
  for (int64_t c = before == value ? 0 : label + 1; c < classes; ++c) {
    if (z[c] == value && c != label) return {value, c};
  }
  return {T(0), -1};
}

template <typename T>
BAT_HD T sum_but_one(const T* v, int64_t count, int64_t left_out) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < left_out; ++c) sum += v[c];
#pragma omp simd reduction(+ : sum)
  for (int64_t c = left_out + 1; c < count; ++c) sum += v[c];
  return sum;
}

// Both gradients of a row, times `scale`; between the visits of the row they hold p and q.
template <typename T, bool kMart>
BAT_HD void pair_row_cpu(const T* z, const T* z_adv, int64_t classes, int64_t y, T beta, T scale, T* per_sample,
                         T* __restrict__ g, T* __restrict__ g_adv) {
  Pair<T, kMart> pair = {row_norm(z, classes), row_norm(z_adv, classes), beta, y, -1, 0, 0, 0, 0, 0, 0};
  T kl = 0, pulled = 0;
#pragma omp simd reduction(+ : kl, pulled)
  for (int64_t c = 0; c < classes; ++c) {
    const T p = pair.clean.probability(z[c]), q = pair.adv.probability(z_adv[c]);
    kl += pair.kl_term(p, pair.log_ratio(z[c], z_adv[c], q));
    pulled += pair.pull(p, q);
    g[c] = p;
    g_adv[c] = q;
  }
  pair.kl = kl;
  pair.pulled = pulled;
  if (kMart) {
    const Ranked<T> other = largest_other(z_adv, classes, y);
    pair.set_classes(y, other.column, z[y], other.value);
    pair.clean_rest = sum_but_one(g, classes, y);
    pair.adv_rest = sum_but_one(g_adv, classes, other.column);
  }
  *per_sample = pair.value(z_adv[y]);
  const T p_label = g[y], q_label = g_adv[y];
  for (int64_t c = 0; c < classes; ++c) {
    const T p = g[c], q = g_adv[c];
    g[c] = scale * pair.grad_clean(p, pair.log_ratio(z[c], z_adv[c], q), false);
    g_adv[c] = scale * pair.grad_adv(p, q, false, false);
  }
  if (kMart) {
    g[y] = scale * pair.grad_clean(p_label, pair.log_ratio(z[y], z_adv[y], q_label), true);
    g_adv[y] = scale * pair.grad_adv(p_label, q_label, true, false);
    const int64_t t = pair.other;
    if (t >= 0) g_adv[t] = scale * pair.grad_adv(pair.clean.probability(z[t]), pair.adv_other, false, true);
  }
}

// Values and gradients, times `scale`, in one visit of each row. `clean.target` is null for TRADES.
template <typename T>
BAT_CLONES void pair_loss_cpu(Logits<T> clean, const T* adv, T beta, T scale, T* __restrict__ per_sample,
                              T* __restrict__ grad_clean, T* __restrict__ grad_adv, int64_t begin, int64_t end) {
  PaddedRow<T> copy, copy_adv, result, result_adv;
  const int64_t classes = clean.classes, width = padded_width(classes);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t start = n * classes, y = clean.target == nullptr ? 0 : clean.target[n];
    const T* z = copy.fill(clean.data + start, classes, width, -T(INFINITY));
    const T* z_adv = copy_adv.fill(adv + start, classes, width, -T(INFINITY));
    T *g = result.space(grad_clean + start, classes, width),
      *g_adv = result_adv.space(grad_adv + start, classes, width);
    if (clean.target == nullptr) {
      pair_row_cpu<T, false>(z, z_adv, width, y, beta, scale, per_sample + n, g, g_adv);
    } else if (valid_label(y, classes)) {
      pair_row_cpu<T, true>(z, z_adv, width, y, beta, scale, per_sample + n, g, g_adv);
    } else {
      for (int64_t c = 0; c < width; ++c) g[c] = g_adv[c] = T(NAN);
      per_sample[n] = T(NAN);
    }
    result.store(grad_clean + start, classes, width);
    result_adv.store(grad_adv + start, classes, width);
  }
}

// In pair_loss.cu; `stream` is a cudaStream_t.
template <typename T>
void pair_loss_cuda(Logits<T> clean, const T* adv, float beta, float scale, float* per_sample, float* loss,
                    T* grad_clean, T* grad_adv, LabelError* error, void* stream);

}  // namespace bat_fast
