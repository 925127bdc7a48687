// What the row kernels share: a batch of logits, the normaliser of a row, the order of its entries.
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

// What softmax needs of a row: p_c = exp((z_c - top) - log_sum). Kept apart, since their sum loses the fraction of
// large logits.
template <typename T>
struct RowNorm {
  T top, log_sum;
  BAT_HD T log_probability(T z) const { return (z - top) - log_sum; }
  BAT_HD T probability(T z) const { return fast_exp(log_probability(z)); }
  BAT_HD T cross_entropy(T z_label) const { return log_sum + (top - z_label); }
};

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

// Vectors take 16 columns at a time, and the columns left over would run one by one. So a short row is copied into a
// buffer and filled up to a whole number of vectors, with a value that changes neither maxima nor sums.
constexpr int64_t kLanes = 16, kShortRow = 512;

inline int64_t padded_width(int64_t classes) {
  return classes < kShortRow ? (classes + kLanes - 1) / kLanes * kLanes : classes;
}

template <typename T>
struct PaddedRow {
  alignas(64) T buffer[kShortRow];
  // `row` itself where it has that width. Null stays null.
  BAT_HD const T* fill(const T* row, int64_t classes, int64_t width, T value) {
    if (row == nullptr || width == classes) return row;
    for (int64_t c = width - kLanes; c < width; ++c) buffer[c] = value;
    for (int64_t c = 0; c < classes; ++c) buffer[c] = row[c];
    return buffer;
  }
  // Where to put a row of results, and how to bring it to its place.
  BAT_HD T* space(T* row, int64_t classes, int64_t width) { return width == classes ? row : buffer; }
  BAT_HD void store(T* row, int64_t classes, int64_t width) const {
    if (width == classes) return;
    for (int64_t c = 0; c < classes; ++c) row[c] = buffer[c];
  }
};

BAT_HD bool valid_label(int64_t label, int64_t classes) { return label >= 0 && label < classes; }

template <typename T>
BAT_HD RowNorm<T> row_norm(const T* z, int64_t classes) {
  const T top = largest(z, 0, classes);
  return {top, fast_log(sum_exp(z, classes, top))};
}

// The squared-error term: weight / C * sum_c (p_c - t_c)^2, with gradient 2 weight / C * p_c (d_c - sum_k p_k d_k).
template <typename T>
BAT_HD T soft_grad(T p, T soft, T mean_difference, T scale) {
  return T(2) * scale * p * ((p - soft) - mean_difference);
}

// sum_i w_i v_i / total, with total = sum_i w_i or N.
template <typename T>
struct Mean {
  T value, total;
};

// In double, since a batch is short and the order must not matter much.
template <typename T>
Mean<T> weighted_mean_cpu(const T* weights, const T* values, int64_t count, bool by_weights) {
  double total = 0, weight = 0;
  for (int64_t n = 0; n < count; ++n) {
    const double w = weights == nullptr ? 1.0 : static_cast<double>(weights[n]);
    total += w * values[n];
    weight += w;
  }
  if (!by_weights) weight = static_cast<double>(count);
  return {static_cast<T>(total / weight), static_cast<T>(weight)};
}

// An entry of a row. Entries are ordered by value, then by column: ties go to the first, as in torch.argmax. A NaN
// comes before everything, so that it is not lost.
template <typename T>
struct Ranked {
  T value;
  int64_t column;  // negative: before all entries, or none
};

template <typename T>
BAT_HD bool precedes(const Ranked<T>& a, const Ranked<T>& b) {
  if (b.column < 0) return a.column >= 0;
  if (a.column < 0) return false;
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan;
  return a.value > b.value || ((a.value == b.value || a_nan) && a.column < b.column);
}

// The better of `best` and the entry (value, column), among the entries that come after `last`.
template <typename T>
BAT_HD Ranked<T> better(const Ranked<T>& best, const Ranked<T>& last, T value, int64_t column) {
  const Ranked<T> entry = {value, column};
  const bool open = last.column < 0 || precedes(last, entry);
  return open && precedes(entry, best) ? entry : best;
}

}  // namespace bat_fast
