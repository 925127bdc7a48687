// row_loss.cu against the CPU twins of row_loss.h in float64.
#include "kernels/row_loss.h"
#include "logits.h"

using namespace bat_fast;

template <typename T>
void check_backward(const Batch<T>& b, const Array<RowNorm<float>>& norm, const Array<RowNorm<double>>& wide_norm) {
  const auto weights = random_array<float>(b.rows, [](int64_t) { return normal(); });
  const auto wide_weights = widened<double>(weights);
  const float grad_loss = 3.0f, total = 1.5f;
  Array<T> grad(b.rows * b.classes, skip_of(b.classes));
  Array<double> want(grad.size());
  bat_backward_cuda(b.in(), weights.data(), norm.data(), &grad_loss, &total, grad.data(), nullptr);
  bat_backward_cpu(b.wide_in(), wide_weights.data(), wide_norm.data(), 2.0, want.data(), 0, b.rows);
  expect_all_close("backward", grad, want, kStored<T>);
}

template <typename T>
void check_bat(const Batch<T>& b, bool by_weights) {
  Array<float> weights(b.rows), per_sample(b.rows), loss(1), total(1);
  Array<RowNorm<float>> norm(b.rows);
  Array<double> want_weights(b.rows), want(b.rows);
  Array<RowNorm<double>> want_norm(b.rows);
  LabelError error = {};
  bat_rows_cuda(b.in(), 1.5f, by_weights, weights.data(), per_sample.data(), norm.data(), loss.data(), total.data(),
                &error, nullptr);
  bat_rows_cpu(b.wide_in(), 1.5, want_weights.data(), want.data(), want_norm.data(), 0, b.rows);
  expect_all_close("weight", weights, want_weights, kSummed);
  expect_all_close("cross-entropy", per_sample, want, kSummed);
  const Mean<double> mean = weighted_mean_cpu(want_weights.data(), want.data(), b.rows, by_weights);
  expect_close("loss", 0, loss[0], mean.value, kSummed);
  expect_close("total", 0, total[0], mean.total, kSummed);
  for (int64_t n = 0; n < b.rows; ++n) {
    if (!b.valid(n)) continue;
    expect_close("top", n, norm[n].top, want_norm[n].top, 0);
    expect_close("log sum", n, norm[n].log_sum, want_norm[n].log_sum, kSummed);
  }
  b.expect_report(error);
  if (error.seen == 0) check_backward(b, norm, want_norm);
}

template <typename T>
void check_soft_target(const Batch<T>& b) {
  const auto soft = random_array<T>(b.z.size(), [](int64_t) { return uniform(); });
  const auto wide_soft = widened<double>(soft);
  Array<T> grad(b.z.size());
  Array<float> per_sample(b.rows), loss(1);
  Array<double> want_grad(grad.size()), want(b.rows);
  soft_target_cuda(b.in(), soft.data(), 2.0f, per_sample.data(), loss.data(), grad.data(), nullptr);
  soft_target_cpu(b.wide_in(), wide_soft.data(), 2.0, want.data(), want_grad.data(), 0, b.rows);
  expect_all_close("soft target", per_sample, want, kSummed);
  expect_all_close("soft target grad", grad, want_grad, kStored<T>);
  expect_close("soft target loss", 0, loss[0], weighted_mean_cpu<double>(nullptr, want.data(), b.rows, false).value,
               kSummed);
}

int main() {
  on_rows([](auto type, int64_t rows, int64_t classes) {
    Batch<decltype(type)> b(rows, classes, classes % 2 ? 1.0 : 50.0);
    check_bat(b, classes % 2);
    check_soft_target(b);
    b.spoil_labels();
    check_bat(b, false);
    b.spoil_numbers();
    check_bat(b, true);
    check_soft_target(b);
  });
  check_bat(Batch<float>(300, 3, 2.0), true);  // more rows than the block of the mean has threads
  return finish();
}
