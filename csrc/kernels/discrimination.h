// The discrimination loss: rows of the similarity matrix S = U U^T / tau of unit features. The matrix products are the
// caller's; here are the passes between them. Element math shared by CPU and CUDA, CPU loops, CUDA launchers.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/softmax.h"

namespace bat_fast {

// What a row (an anchor i) contributes to its pairs. log_sum is that of exp(s) over A(i), or over the other classes.
template <typename T>
struct Anchor {
  T log_sum;
  T weight;  // of the probabilities exp(s - log_sum): a_i, or the sum of the row's pulls
  T share;   // a_i / |P(i)|; the a_i sum to 1 and are 0 without positives
};

// Rows first .. first + rows of the matrix of products of unit features, [rows, n].
template <typename T>
struct PairRows {
  T* products;
  const int64_t* target;  // [n]
  int64_t n, first, rows;
  T scale;         // 1 / tau
  bool negatives;  // A(i) is j and the other classes, instead of all but i
};

template <typename T>
BAT_HD T sigmoid(T x) {
  const T t = fast_exp(x < T(0) ? x : -x);
  return (x < T(0) ? t : T(1)) / (T(1) + t);
}
template <typename T>
BAT_HD T soft_plus(T x) {
  return (x < T(0) ? T(0) : x) + fast_log1p(fast_exp(x < T(0) ? x : -x)).log;
}

// The gradient of the loss with respect to s_ij and s_ji together: S is symmetric, so its row is enough.
template <typename T>
BAT_HD T pair_gradient(T s, bool same, bool negatives, const Anchor<T>& i, const Anchor<T>& j) {
  if (negatives && same) return -(i.share * sigmoid(i.log_sum - s) + j.share * sigmoid(j.log_sum - s));
  const T repel = i.weight * fast_exp(s - i.log_sum) + j.weight * fast_exp(s - j.log_sum);
  return same ? repel - (i.share + j.share) : repel;
}

// Closes a row: its log-sum (top and sum), what its positives add up to, its loss.
template <typename T>
BAT_HD T close_anchor(Anchor<T>& a, T top, T sum) {
  // Without positives the row has no part: the infinite log-sum makes its probabilities 0.
  a.log_sum = a.share > T(0) ? (sum > T(0) || sum != sum ? top + std::log(sum) : -T(INFINITY)) : T(INFINITY);
  return a.log_sum;
}

template <typename T>
BAT_CLONES void unit_rows_cpu(const T* features, int64_t d, T* __restrict__ unit, T* __restrict__ norm, int64_t begin,
                              int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    T square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t k = 0; k < d; ++k) square += features[i * d + k] * features[i * d + k];
    norm[i] = maximum(std::sqrt(square), T(1e-12));
    const T inverse = T(1) / norm[i];
    for (int64_t k = 0; k < d; ++k) unit[i * d + k] = features[i * d + k] * inverse;
  }
}

// grad_i = (g_i - u_i (u_i . g_i)) / |f_i|, times `scale` and then `factor`, with g the gradient of the unit features.
template <typename T>
BAT_CLONES void unit_backward_cpu(const T* features, const T* norm, const T* unit_grad, T scale, T factor, int64_t d,
                                  T* __restrict__ grad, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T *f = features + i * d, *g = unit_grad + i * d;
    const T inverse = T(1) / norm[i];
    T along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t k = 0; k < d; ++k) along += f[k] * inverse * g[k];
    for (int64_t k = 0; k < d; ++k) {
      grad[i * d + k] = factor * ((g[k] - f[k] * inverse * along) * (scale / norm[i]));
    }
  }
}

// The samples of a batch by class: the class of sample i is order[begin[i]] .. order[end[i]].
struct Classes {
  std::vector<int32_t> order, begin, end;
  Classes(const int64_t* target, int64_t n) : order(n), begin(n), end(n) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) { return target[i] < target[j]; });
    for (int32_t first = 0, last = 0; first < n; first = last) {
      while (last < n && target[order[last]] == target[order[first]]) ++last;
      for (int32_t k = first; k < last; ++k) {
        begin[order[k]] = first;
        end[order[k]] = last;
      }
    }
  }
  int64_t positives(int64_t i) const { return end[i] - begin[i] - 1; }
};

template <typename T>
void share_anchors_cpu(const Classes& classes, const T* weights, int64_t n, Anchor<T>* anchors) {
  const auto weight = [&](int64_t i) {
    return classes.positives(i) == 0 ? 0.0 : weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
  };
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += weight(i);
  for (int64_t i = 0; i < n; ++i) {
    const double w = total > 0 ? weight(i) / total : 0.0;
    const int64_t count = classes.positives(i) > 0 ? classes.positives(i) : 1;
    anchors[i] = {T(0), static_cast<T>(w), static_cast<T>(w / static_cast<double>(count))};
  }
}

// First pass over a row: its log-sum, and its part of the loss. What the sum leaves out is -inf for that long, so that
// the loops over the row compare no classes.
template <typename T>
BAT_CLONES void anchor_rows_cpu(PairRows<T> in, const Classes& classes, Anchor<T>* anchors, T* __restrict__ part,
                                int64_t begin, int64_t end) {
  std::vector<T> kept;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t i = in.first + r;
    const int32_t *mate = classes.order.data() + classes.begin[i], *last = classes.order.data() + classes.end[i];
    T* row = in.products + r * in.n;
    kept.clear();
    for (const int32_t* j = mate; j < last; ++j) {
      kept.push_back(row[*j]);
      if (in.negatives || *j == i) row[*j] = -T(INFINITY);
    }
    const T top = in.scale * largest(row, 0, in.n), shift = top == -T(INFINITY) ? T(0) : top;
    T sum = 0, pull = 0, loss = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < in.n; ++j) sum += fast_exp(in.scale * row[j] - shift);
    const T log_sum = close_anchor(anchors[i], shift, sum), share = anchors[i].share;
    for (std::size_t k = 0; k < kept.size(); ++k) {
      row[mate[k]] = kept[k];
      if (mate[k] == i || !(share > T(0))) continue;
      const T gap = log_sum - in.scale * kept[k];
      loss += in.negatives ? soft_plus(gap) : gap;
      pull += in.negatives ? sigmoid(gap) : T(0);
    }
    if (in.negatives && share > T(0)) anchors[i].weight = share * pull;
    part[i] = share * loss;
  }
}

// Second pass: the gradient of each pair, in place. The pairs of a class come last.
template <typename T>
BAT_CLONES void pair_gradients_cpu(PairRows<T> in, const Classes& classes, const Anchor<T>* anchors, int64_t begin,
                                   int64_t end) {
  std::vector<T> kept;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t i = in.first + r;
    const int32_t *mate = classes.order.data() + classes.begin[i], *last = classes.order.data() + classes.end[i];
    T* row = in.products + r * in.n;
    const Anchor<T> own = anchors[i];
    kept.clear();
    for (const int32_t* j = mate; j < last; ++j) kept.push_back(in.scale * row[*j]);
    for (int64_t j = 0; j < in.n; ++j) row[j] = pair_gradient(in.scale * row[j], false, in.negatives, own, anchors[j]);
    for (std::size_t k = 0; k < kept.size(); ++k) {
      row[mate[k]] = pair_gradient(kept[k], true, in.negatives, own, anchors[mate[k]]);
    }
    row[i] = T(0);
  }
}

// Fills the tiles below the diagonal from their mirror images, in squares that the cache holds both of.
template <typename T>
void mirror_cpu(T* s, int64_t n, int64_t tile, int64_t begin, int64_t end) {
  constexpr int64_t kSquare = 16;  // divides `tile`
  for (int64_t i = begin; i < end; i += kSquare) {
    const int64_t below = i + kSquare < end ? i + kSquare : end;
    for (int64_t j = 0; j < (below - 1) / tile * tile; j += kSquare) {
      for (int64_t k = i; k < below; ++k) {
        for (int64_t m = j; m < j + kSquare && m < k / tile * tile; ++m) s[k * n + m] = s[m * n + k];
      }
    }
  }
}

// CUDA launchers, in discrimination.cu; `stream` is a cudaStream_t.
template <typename T>
void unit_rows_cuda(const T* features, int64_t n, int64_t d, float* unit, float* norm, void* stream);
template <typename T>
void unit_backward_cuda(const T* features, const float* norm, const float* unit_grad, float scale,
                        const float* grad_loss, int64_t n, int64_t d, T* grad, void* stream);
void share_anchors_cuda(const int64_t* target, const float* weights, int64_t n, Anchor<float>* anchors, void* stream);
void anchor_rows_cuda(PairRows<float> in, Anchor<float>* anchors, float* part, void* stream);
void pair_gradients_cuda(PairRows<float> in, const Anchor<float>* anchors, void* stream);
void sum_cuda(const float* part, int64_t n, float* sum, void* stream);

}  // namespace bat_fast
