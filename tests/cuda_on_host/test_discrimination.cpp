// discrimination.cu against the CPU twins of discrimination.h in float64. The matrix products are written as loops.
#include <vector>

#include "check.h"
#include "kernels/discrimination.h"

using namespace bat_fast;

constexpr double kClose = 2e-5;

// a b^T, or a b with b transposed by the caller's strides.
template <typename T>
void products(const Array<T>& unit, int64_t n, int64_t d, Array<T>& out) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (int64_t k = 0; k < d; ++k) sum += unit[i * d + k] * unit[j * d + k];
      out[i * n + j] = sum;
    }
  }
}

template <typename T>
void check_unit_rows(int64_t n, int64_t d) {
  const auto features = random_array<T>(n * d, [](int64_t) { return normal(); });
  const auto wide = widened<double>(features);
  Array<float> unit(n * d), norm(n);
  Array<double> want_unit(n * d), want_norm(n), want(n * d);
  unit_rows_cuda(features.data(), n, d, unit.data(), norm.data(), nullptr);
  unit_rows_cpu(wide.data(), d, want_unit.data(), want_norm.data(), 0, n);
  const auto unit_grad = random_array<float>(n * d, [](int64_t) { return normal(); });
  const auto wide_grad = widened<double>(unit_grad);
  Array<T> grad(n * d);
  const float grad_loss = -0.5f;
  unit_backward_cuda(features.data(), norm.data(), unit_grad.data(), 10.0f, &grad_loss, n, d, grad.data(), nullptr);
  unit_backward_cpu(wide.data(), want_norm.data(), wide_grad.data(), 10.0, -0.5, d, want.data(), 0, n);
  const double stored = sizeof(T) == 4 ? kClose : 2e-2;
  for (int64_t i = 0; i < n * d; ++i) {
    expect_close("unit feature", i, unit[i], want_unit[i], kClose);
    expect_close("gradient of a feature", i, load(grad[i]), want[i], stored * (1 + std::abs(want[i])));
  }
}

void check_pairs(int64_t n, int64_t classes, bool weighted, bool negatives) {
  constexpr int64_t kDims = 5;
  Array<int64_t> target(n);
  for (auto i = 0; i < n; ++i) target[i] = static_cast<int64_t>(uniform() * static_cast<double>(classes));
  const auto weights = random_array<float>(n, [](int64_t) { return uniform(); });
  const auto wide_weights = widened<double>(weights);
  const auto features = random_array<float>(n * kDims, [](int64_t) { return normal(); });
  Array<float> unit(n * kDims), norm(n), part(n), loss(1), pairs(n * n);
  unit_rows_cuda(features.data(), n, kDims, unit.data(), norm.data(), nullptr);
  const auto wide_unit = widened<double>(unit);
  Array<double> want_part(n), want_pairs(n * n);
  products(unit, n, kDims, pairs);
  products(wide_unit, n, kDims, want_pairs);
  Array<Anchor<float>> anchors(n);
  Array<Anchor<double>> want_anchors(n);
  share_anchors_cuda(target.data(), weighted ? weights.data() : nullptr, n, anchors.data(), nullptr);
  const Classes by_class(target.data(), n);
  share_anchors_cpu<double>(by_class, weighted ? wide_weights.data() : nullptr, n, want_anchors.data());
  // Two blocks of rows, as for a batch too large for one matrix.
  const int64_t half = n / 2;
  for (const auto& [first, rows] : {std::pair{int64_t{0}, half}, std::pair{half, n - half}}) {
    const PairRows<float> in = {pairs.data() + first * n, target.data(), n, first, rows, 10.0f, negatives};
    const PairRows<double> wide = {want_pairs.data() + first * n, target.data(), n, first, rows, 10.0, negatives};
    anchor_rows_cuda(in, anchors.data(), part.data(), nullptr);
    anchor_rows_cpu(wide, by_class, want_anchors.data(), want_part.data(), 0, rows);
  }
  sum_cuda(part.data(), n, loss.data(), nullptr);
  double want_loss = 0;
  for (int64_t i = 0; i < n; ++i) want_loss += want_part[i];
  expect_close("loss", 0, loss[0], want_loss, kClose);
  for (const auto& [first, rows] : {std::pair{int64_t{0}, half}, std::pair{half, n - half}}) {
    const PairRows<float> in = {pairs.data() + first * n, target.data(), n, first, rows, 10.0f, negatives};
    const PairRows<double> wide = {want_pairs.data() + first * n, target.data(), n, first, rows, 10.0, negatives};
    pair_gradients_cuda(in, anchors.data(), nullptr);
    pair_gradients_cpu(wide, by_class, want_anchors.data(), 0, rows);
  }
  for (int64_t i = 0; i < n * n; ++i) expect_close("gradient of a pair", i, pairs[i], want_pairs[i], kClose);
}

int main() {
  for (const int64_t d : {1, 31, 33, 2049}) {
    check_unit_rows<float>(3, d);
    check_unit_rows<half_bits>(9, d);
    check_unit_rows<bfloat_bits>(2, d);
  }
  for (const int64_t n : {1, 2, 9, 65}) {
    for (const bool weighted : {false, true}) {
      check_pairs(n, 1, weighted, false);
      check_pairs(n, 4, weighted, true);
      check_pairs(n, 100, weighted, false);
      check_pairs(n, 1, weighted, true);
    }
  }
  return finish();
}
