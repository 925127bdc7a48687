// Attack losses and their gradients with respect to the logits. Element math shared by CPU and CUDA, CPU loops,
// launcher.
#pragma once

#include "kernels/softmax.h"

namespace bat_fast {

enum class RowLoss : int { kCrossEntropy, kMargin, kDlr, kKl };

// What an attack climbs. Unused arrays are null.
template <typename T>
struct Attack {
  RowLoss loss;
  bool targeted;         // move towards `target` instead of away from it
  const int64_t* label;  // [N] true classes, for targeted DLR
  const T* reference;    // [N, C] logits, for KL
  const T* soft;         // [N, C] soft targets of the squared-error term
  compute_t<T> soft_weight;
};

// One term of KL(q || p), 0 where q is 0.
template <typename T>
BAT_HD T kl_term(T q, T log_q, T log_p) {
  return q > T(0) ? q * (log_q - log_p) : q * T(0);  // q may be NaN
}

// Margin and DLR are a difference of two logits over a difference of others:
// (z_up - z_down) / (z_first - sum_k share_k z_k + 1e-12), or without the denominator.
template <typename T>
struct Ratio {
  Ranked<T> up, down;
  T value, scale;                // value of the loss; 1 / denominator
  Ranked<T> top, third, fourth;  // third and fourth share the subtrahend; columns < 0 where they have no part
  BAT_HD T grad(int64_t c) const {
    T g = T(c == up.column) - T(c == down.column);
    g *= scale;
    const T pull = value * scale;
    if (c == top.column) g -= pull;
    if (fourth.column < 0) {
      if (c == third.column) g += pull;
    } else if (c == third.column || c == fourth.column) {
      g += T(0.5) * pull;
    }
    return g;
  }
};

// `order` holds the largest entries of the row in order: two are enough for the margin, four for targeted DLR.
template <typename T>
BAT_HD Ratio<T> margin_or_dlr(const Ranked<T>* order, RowLoss loss, bool targeted, int64_t target, T z_target,
                              int64_t label, T z_label) {
  const Ranked<T> none = {T(0), -1};
  Ratio<T> r = {order[0].column == target ? order[1] : order[0], {z_target, target}, T(0), T(1), none, none, none};
  if (loss == RowLoss::kDlr) {
    r.top = order[0];
    r.third = order[2];
    T gap = order[0].value - order[2].value;  // differences of logits, since their sums round
    if (targeted) {
      r.up = {z_target, target};  // climb from the label to the target
      r.down = {z_label, label};
      r.fourth = order[3];
      gap = T(0.5) * (gap + (order[0].value - order[3].value));
    }
    r.scale = T(1) / (gap + T(1e-12));
  }
  r.value = (r.up.value - r.down.value) * r.scale;
  // A targeted margin is climbed with its sign flipped; a targeted DLR names its direction itself.
  if (targeted && loss == RowLoss::kMargin) {
    const Ranked<T> up = r.up;
    r.up = r.down;
    r.down = up;
    r.value = -r.value;
  }
  return r;
}

template <typename T>
BAT_HD void ranked_row_cpu(const T* z, int64_t classes, Attack<T> a, int64_t target, int64_t label, T* grad,
                           T* per_sample) {
  Ranked<T> order[4], last = {T(0), -1};
  for (auto& entry : order) {
    entry = {T(0), -1};
    for (int64_t c = 0; c < classes; ++c) entry = better(entry, last, z[c], c);
    if (entry.column < 0) break;
    last = entry;
  }
  const Ratio<T> r = margin_or_dlr(order, a.loss, a.targeted, target, z[target], label, z[label]);
  for (int64_t c = 0; c < classes; ++c) grad[c] = r.grad(c);
  if (order[0].value != order[0].value) {
    for (int64_t c = 0; c < classes; ++c) grad[c] = T(NAN);
  }
  *per_sample = r.value;
}

// Cross-entropy or KL, plus `weight` times the summed squares.
template <typename T>
BAT_HD void softmax_row_cpu(const T* z, int64_t classes, Attack<T> a, const T* reference, const T* soft, T weight,
                            int64_t target, T* grad, T* per_sample) {
  const T sign = a.targeted ? T(-1) : T(1);
  const T top = largest(z, 0, classes);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < classes; ++c) {
    grad[c] = fast_exp(z[c] - top);
    sum += grad[c];
  }
  const RowNorm<T> norm = {top, fast_log(sum)};
  const T scale = T(1) / sum;
  for (int64_t c = 0; c < classes; ++c) grad[c] *= scale;  // p
  T mean_difference = 0, square = 0;
  if (soft != nullptr) {
#pragma omp simd reduction(+ : mean_difference, square)
    for (int64_t c = 0; c < classes; ++c) {
      const T d = grad[c] - soft[c];
      mean_difference += grad[c] * d;
      square += d * d;
    }
    for (int64_t c = 0; c < classes; ++c) grad[c] += soft_grad(grad[c], soft[c], mean_difference, weight);
  }
  T value = 0;
  if (a.loss == RowLoss::kKl) {
    const T ref_top = largest(reference, 0, classes), ref_sum = sum_exp(reference, classes, ref_top);
    const RowNorm<T> ref = {ref_top, fast_log(ref_sum)};
    const T ref_scale = T(1) / ref_sum;  // q is computed as p is: equal logits give no gradient at all
#pragma omp simd reduction(+ : value)
    for (int64_t c = 0; c < classes; ++c) {
      const T log_q = ref.log_probability(reference[c]), q = ref_scale * fast_exp(reference[c] - ref_top);
      value += kl_term(q, log_q, norm.log_probability(z[c]));
      grad[c] -= q;
    }
  } else {
    if (a.targeted) {
      for (int64_t c = 0; c < classes; ++c) grad[c] = -grad[c];
    }
    grad[target] -= sign;
    value = sign * norm.cross_entropy(z[target]);
  }
  *per_sample = value + weight * square;
}

template <typename T>
BAT_CLONES void attack_grad_cpu(Logits<T> in, Attack<T> a, T* __restrict__ grad, T* __restrict__ per_sample,
                                int64_t begin, int64_t end) {
  PaddedRow<T> copy, reference_copy, soft_copy, result;
  const int64_t width = padded_width(in.classes);
  const T weight = a.soft_weight / static_cast<T>(in.classes);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t start = n * in.classes, y = in.target[n], label = a.label == nullptr ? y : a.label[n];
    if (!valid_label(y, in.classes) || !valid_label(label, in.classes)) {
      for (int64_t c = 0; c < in.classes; ++c) grad[start + c] = T(NAN);
      per_sample[n] = T(NAN);
    } else if (a.loss == RowLoss::kMargin || a.loss == RowLoss::kDlr) {
      ranked_row_cpu(in.data + start, in.classes, a, y, label, grad + start, per_sample + n);
    } else {
      const T* reference = a.reference == nullptr ? nullptr : a.reference + start;
      const T* soft = a.soft == nullptr ? nullptr : a.soft + start;
      softmax_row_cpu(copy.fill(in.data + start, in.classes, width, -T(INFINITY)), width, a,
                      reference_copy.fill(reference, in.classes, width, -T(INFINITY)),
                      soft_copy.fill(soft, in.classes, width, T(0)), weight, y,
                      result.space(grad + start, in.classes, width), per_sample + n);
      result.store(grad + start, in.classes, width);
    }
  }
}

// In attack_grad.cu; `stream` is a cudaStream_t.
template <typename T>
void attack_grad_cuda(Logits<T> in, Attack<T> a, T* grad, float* per_sample, LabelError* error, void* stream);

}  // namespace bat_fast
