// Losses of a clean and an adversarial row of logits: the KL of TRADES, and MART. Element math for both twins, the CPU
// loop, the CUDA launcher. Value and both gradients come from one visit of the row.
#pragma once

#include "kernels/softmax.h"

namespace bat_fast {

// MART: CE(z', y) - log(1.0001 - m + 1e-12) + beta KL (1.0000001 - p_y), with m = max_{t != y} p'_t and
// KL = sum_c p_c (log p_c - log(p'_c + 1e-12)). TRADES: KL without the 1e-12, and nothing else.
template <typename T>
struct Pair {
  RowNorm<T> clean, adv;
  bool mart;
  T beta;
  int64_t label, other;  // y and the class of m
  T clean_label, adv_other;
  // Sums over the row. The rests are 1 - p_y and 1 - m: subtracting from 1 would leave their rounding errors alone.
  T kl, pulled, clean_rest, adv_rest;

  BAT_HD void set_classes(int64_t y, int64_t t, T z_label, T z_adv_other) {
    label = y;
    other = t;
    clean_label = clean.probability(z_label);
    adv_other = t < 0 ? T(0) : adv.probability(z_adv_other);
  }
  BAT_HD T log_adv(T z_adv) const {
    return mart ? std::log(adv.probability(z_adv) + T(1e-12)) : adv.log_probability(z_adv);
  }
  BAT_HD T kl_term(T z, T z_adv) const {
    const T log_p = clean.log_probability(z), p = fast_exp(log_p);
    return p > T(0) ? p * (log_p - log_adv(z_adv)) : p * T(0);  // p may be NaN
  }
  // The part of p that the KL pulls towards; all of it without the 1e-12.
  BAT_HD T pull(T z, T z_adv) const {
    const T p = clean.probability(z), q = adv.probability(z_adv);
    return mart ? p * q / (q + T(1e-12)) : p;
  }
  BAT_HD T kl_weight() const { return mart ? beta * (clean_rest + T(1e-7)) : T(1); }
  BAT_HD T margin() const { return adv_rest + (T(1e-4) + T(1e-12)); }
  BAT_HD T value(T z_adv_label) const {
    return (mart ? adv.cross_entropy(z_adv_label) - std::log(margin()) : T(0)) + kl_weight() * kl;
  }
  BAT_HD T grad_adv(int64_t c, T z, T z_adv) const {
    const T q = adv.probability(z_adv);
    T g = kl_weight() * (q * pulled - pull(z, z_adv));
    if (mart) g += q - T(c == label) + adv_other / margin() * (c == other ? adv_rest : -q);
    return g;
  }
  BAT_HD T grad_clean(int64_t c, T z, T z_adv) const {
    const T log_p = clean.log_probability(z), p = fast_exp(log_p);
    T g = p > T(0) ? kl_weight() * p * (log_p - log_adv(z_adv) - kl) : p * T(0);
    if (mart) g -= beta * kl * clean_label * (c == label ? clean_rest : -p);
    return g;
  }
};

// The largest entry of the row but for the label's.
template <typename T>
BAT_HD Ranked<T> largest_other(const T* z, int64_t classes, int64_t label) {
  Ranked<T> best = {T(0), -1};
  for (int64_t c = 0; c < classes; ++c) {
    if (c != label) best = better(best, {T(0), -1}, z[c], c);
  }
  return best;
}

// Values and gradients, times `scale`, in one visit of each row. `clean.target` is null for TRADES.
template <typename T>
BAT_CLONES void pair_loss_cpu(Logits<T> clean, const T* adv, T beta, T scale, T* __restrict__ per_sample,
                              T* __restrict__ grad_clean, T* __restrict__ grad_adv, int64_t begin, int64_t end) {
  const bool mart = clean.target != nullptr;
  for (int64_t n = begin; n < end; ++n) {
    const int64_t start = n * clean.classes, y = mart ? clean.target[n] : 0;
    const T *z = clean.data + start, *z_adv = adv + start;
    T *g = grad_clean + start, *g_adv = grad_adv + start;
    if (!valid_label(y, clean.classes)) {
      for (int64_t c = 0; c < clean.classes; ++c) g[c] = g_adv[c] = T(NAN);
      per_sample[n] = T(NAN);
      continue;
    }
    Pair<T> p = {row_norm(z, clean.classes), row_norm(z_adv, clean.classes), mart, beta, 0, -1, 0, 0, 0, 0, 0, 0};
    if (mart) {
      const Ranked<T> other = largest_other(z_adv, clean.classes, y);
      p.set_classes(y, other.column, z[y], other.value);
    }
    T kl = 0, pulled = 0, clean_rest = 0, adv_rest = 0;
#pragma omp simd reduction(+ : kl, pulled, clean_rest, adv_rest)
    for (int64_t c = 0; c < clean.classes; ++c) {
      kl += p.kl_term(z[c], z_adv[c]);
      pulled += p.pull(z[c], z_adv[c]);
      clean_rest += c == p.label ? T(0) : p.clean.probability(z[c]);
      adv_rest += c == p.other ? T(0) : p.adv.probability(z_adv[c]);
    }
    p.kl = kl;
    p.pulled = pulled;
    p.clean_rest = clean_rest;
    p.adv_rest = adv_rest;
    per_sample[n] = p.value(z_adv[y]);
    for (int64_t c = 0; c < clean.classes; ++c) {
      g_adv[c] = scale * p.grad_adv(c, z[c], z_adv[c]);
      g[c] = scale * p.grad_clean(c, z[c], z_adv[c]);
    }
  }
}

// In pair_loss.cu; `stream` is a cudaStream_t.
template <typename T>
void pair_loss_cuda(Logits<T> clean, const T* adv, float beta, float scale, float* per_sample, float* loss,
                    T* grad_clean, T* grad_adv, LabelError* error, void* stream);

}  // namespace bat_fast
