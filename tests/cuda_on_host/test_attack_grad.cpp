// attack_grad.cu against the CPU twin of attack_grad.h in float64.
#include "kernels/attack_grad.h"
#include "logits.h"

using namespace bat_fast;

template <typename T>
void check_attack(const Batch<T>& b, RowLoss loss, bool targeted, bool with_soft) {
  const auto reference = random_array<T>(b.z.size(), [](int64_t) { return 2 * normal(); });
  const auto soft = random_array<T>(b.z.size(), [](int64_t) { return uniform(); });
  const auto wide_reference = widened<double>(reference), wide_soft = widened<double>(soft);
  Array<int64_t> label(b.rows);
  for (int64_t n = 0; n < b.rows; ++n) label[n] = (n + 1) % b.classes;
  const bool is_kl = loss == RowLoss::kKl;
  const Attack<T> attack = {loss,
                            targeted,
                            loss == RowLoss::kDlr ? label.data() : nullptr,
                            is_kl ? reference.data() : nullptr,
                            with_soft ? soft.data() : nullptr,
                            with_soft ? 3.0f : 0.0f};
  const Attack<double> wide_attack = {loss,
                                      targeted,
                                      attack.label,
                                      is_kl ? wide_reference.data() : nullptr,
                                      with_soft ? wide_soft.data() : nullptr,
                                      with_soft ? 3.0 : 0.0};
  Array<T> grad(b.z.size(), skip_of(b.classes));
  Array<float> per_sample(b.rows);
  Array<double> want_grad(grad.size()), want(b.rows);
  LabelError error = {};
  attack_grad_cuda(b.in(), attack, grad.data(), per_sample.data(), &error, nullptr);
  attack_grad_cpu(b.wide_in(), wide_attack, want_grad.data(), want.data(), 0, b.rows);
  // A row of few classes can lack the denominator of DLR: float32 and float64 then differ by rounding over 1e-12.
  const bool wild = loss == RowLoss::kDlr && b.classes < 5;
  for (int64_t n = 0; n < b.rows; ++n) expect(std::isnan(per_sample[n]) == std::isnan(want[n]), "NaN", n);
  if (!wild) {
    expect_all_close("attack", per_sample, want, kSummed);
    expect_all_close("attack grad", grad, want_grad, kStored<T>);
  }
  b.expect_report(error);
}

int main() {
  on_rows([](auto type, int64_t rows, int64_t classes) {
    Batch<decltype(type)> b(rows, classes, 3.0);
    check_attack(b, RowLoss::kCrossEntropy, true, false);
    check_attack(b, RowLoss::kKl, false, true);
    check_attack(b, RowLoss::kMargin, true, false);
    check_attack(b, RowLoss::kDlr, true, false);
    check_attack(b, RowLoss::kDlr, false, false);
    b.spoil_labels();
    check_attack(b, RowLoss::kCrossEntropy, false, true);
    b.spoil_numbers();
    check_attack(b, RowLoss::kCrossEntropy, false, false);
  });
  return finish();
}
