// Losses of a clean and an adversarial row of logits: the KL of TRADES, and MART. Element math shared by CPU and CUDA,
// CPU loops over rows, CUDA launchers. The forward pass saves twelve numbers per row; the backward pass reads the
// logits again. On CUDA that is two passes over memory less than to save the gradients and to multiply them by what
// comes from above, and no gradient is written that nobody asks for.
#pragma once

#include <type_traits>
#include <vector>

#include "kernels/softmax.h"

namespace bat_fast {

// What the value and the gradients need of a pair of rows beside the logits: saved as a row of numbers.
// MART: CE(z', y) - log(1.0001 - m + 1e-12) + beta KL (1.0000001 - p_y), with m = max_{t != y} p'_t and
// KL = sum_c p_c (log p_c - log(p'_c + 1e-12)). TRADES: KL without the 1e-12, and nothing else.
template <typename T, bool kMart>
struct Pair {
  RowNorm<T> clean, adv;
  // Sums over the row. The rests are 1 - p_y and 1 - m: subtracting from 1 would leave their rounding errors alone.
  T kl, pulled, clean_rest, adv_rest;
  T clean_label, adv_other, other;  // p_y, m, and the class of m, -1 where there is none
  T beta;

  // Of a row without a valid label: all of it, and so its gradients, are NaN.
  BAT_HD static Pair none() {
    constexpr T nan = T(NAN);
    return {{nan, nan}, {nan, nan}, nan, nan, nan, nan, nan, nan, nan, nan};
  }

  // Of one class, with p and q its probabilities. No struct holds them, as that would keep loops from vectorising.
  BAT_HD T log_adv(T z_adv, T q) const { return kMart ? fast_log(q + T(1e-12)) : adv.log_probability(z_adv); }
  BAT_HD T log_ratio(T z, T z_adv, T q) const { return clean.log_probability(z) - log_adv(z_adv, q); }

  BAT_HD void set_classes(T z_label, const Ranked<T>& largest) {
    const bool some = largest.column >= 0 && largest.value > -T(INFINITY);
    clean_label = clean.probability(z_label);
    adv_other = some ? adv.probability(largest.value) : T(0);
    other = some ? static_cast<T>(largest.column) : T(-1);
  }
  // What was saved may be NaN.
  BAT_HD int64_t other_class(int64_t classes) const {
    return other >= T(0) && other < static_cast<T>(classes) ? static_cast<int64_t>(other) : -1;
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

// Of a row with label y; p and q are space for its probabilities.
template <typename T, bool kMart>
BAT_HD Pair<T, kMart> pair_row_cpu(const T* z, const T* z_adv, int64_t classes, int64_t y, T beta, T* __restrict__ p,
                                   T* __restrict__ q) {
  Pair<T, kMart> pair = {row_norm(z, classes), row_norm(z_adv, classes), 0, 0, 0, 0, 0, 0, -1, beta};
  T kl = 0, pulled = 0;
#pragma omp simd reduction(+ : kl, pulled)
  for (int64_t c = 0; c < classes; ++c) {
    p[c] = pair.clean.probability(z[c]);
    q[c] = pair.adv.probability(z_adv[c]);
    kl += pair.kl_term(p[c], pair.log_ratio(z[c], z_adv[c], q[c]));
    pulled += pair.pull(p[c], q[c]);
  }
  pair.kl = kl;
  pair.pulled = pulled;
  if (kMart) {
    const Ranked<T> other = largest_other(z_adv, classes, y);
    pair.set_classes(z[y], other);
    pair.clean_rest = sum_but_one(p, classes, y);
    pair.adv_rest = sum_but_one(q, classes, other.column);
  }
  return pair;
}

// `clean.target` is null for TRADES.
template <typename T, bool kMart>
BAT_CLONES void pair_rows_cpu(Logits<T> clean, const T* adv, T beta, T* __restrict__ per_sample,
                              Pair<T, kMart>* __restrict__ rows, int64_t begin, int64_t end) {
  PaddedRow<T> copy, copy_adv;
  const int64_t classes = clean.classes, width = padded_width(classes);
  std::vector<T> space(2 * width);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t start = n * classes, y = kMart ? clean.target[n] : 0;
    if (kMart && !valid_label(y, classes)) {
      rows[n] = Pair<T, kMart>::none();
      per_sample[n] = T(NAN);
      continue;
    }
    const T* z = copy.fill(clean.data + start, classes, width, -T(INFINITY));
    const T* z_adv = copy_adv.fill(adv + start, classes, width, -T(INFINITY));
    rows[n] = pair_row_cpu<T, kMart>(z, z_adv, width, y, beta, space.data(), space.data() + width);
    per_sample[n] = rows[n].value(kMart ? z_adv[y] : T(0));
  }
}

// The gradients of a row with label y, times `scale` and then `factor`: of those that are wanted.
template <bool kClean, bool kAdv, typename T, bool kMart>
BAT_HD void pair_row_backward_cpu(const T* z, const T* z_adv, int64_t classes, int64_t y, Pair<T, kMart> pair, T scale,
                                  T factor, T* __restrict__ g, T* __restrict__ g_adv) {
  for (int64_t c = 0; c < classes; ++c) {
    const T p = pair.clean.probability(z[c]), q = pair.adv.probability(z_adv[c]);
    if (kClean) g[c] = factor * (scale * pair.grad_clean(p, pair.log_ratio(z[c], z_adv[c], q), false));
    if (kAdv) g_adv[c] = factor * (scale * pair.grad_adv(p, q, false, false));
  }
  if (!kMart) return;
  const T p_label = pair.clean_label, q_label = pair.adv.probability(z_adv[y]);
  if (kClean) g[y] = factor * (scale * pair.grad_clean(p_label, pair.log_ratio(z[y], z_adv[y], q_label), true));
  if (kAdv) g_adv[y] = factor * (scale * pair.grad_adv(p_label, q_label, true, false));
  const int64_t t = pair.other_class(classes);
  if (kAdv && t >= 0) {
    g_adv[t] = factor * (scale * pair.grad_adv(pair.clean.probability(z[t]), pair.adv_other, false, true));
  }
}

template <typename T, bool kMart>
BAT_CLONES void pair_backward_cpu(Logits<T> clean, const T* adv, const Pair<T, kMart>* rows, T scale, T factor,
                                  T* grad_clean, T* grad_adv, int64_t begin, int64_t end) {
  PaddedRow<T> copy, copy_adv, result, result_adv;
  const int64_t classes = clean.classes, width = padded_width(classes);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t start = n * classes, label = kMart ? clean.target[n] : 0, y = valid_label(label, classes) ? label : 0;
    const T* z = copy.fill(clean.data + start, classes, width, -T(INFINITY));
    const T* z_adv = copy_adv.fill(adv + start, classes, width, -T(INFINITY));
    T* g = grad_clean == nullptr ? nullptr : result.space(grad_clean + start, classes, width);
    T* g_adv = grad_adv == nullptr ? nullptr : result_adv.space(grad_adv + start, classes, width);
    if (g != nullptr && g_adv != nullptr) {
      pair_row_backward_cpu<true, true>(z, z_adv, width, y, rows[n], scale, factor, g, g_adv);
    } else if (g != nullptr) {
      pair_row_backward_cpu<true, false>(z, z_adv, width, y, rows[n], scale, factor, g, g_adv);
    } else if (g_adv != nullptr) {
      pair_row_backward_cpu<false, true>(z, z_adv, width, y, rows[n], scale, factor, g, g_adv);
    }
    if (g != nullptr) result.store(grad_clean + start, classes, width);
    if (g_adv != nullptr) result_adv.store(grad_adv + start, classes, width);
  }
}

// In pair_loss.cu; `stream` is a cudaStream_t.
template <typename T, bool kMart>
void pair_rows_cuda(Logits<T> clean, const T* adv, float beta, float* per_sample, Pair<float, kMart>* rows, float* loss,
                    LabelError* error, void* stream);
template <typename T, bool kMart>
void pair_backward_cuda(Logits<T> clean, const T* adv, const Pair<float, kMart>* rows, float scale,
                        const float* grad_loss, T* grad_clean, T* grad_adv, void* stream);

}  // namespace bat_fast
