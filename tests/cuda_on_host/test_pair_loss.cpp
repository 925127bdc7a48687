// pair_loss.cu against the CPU twin of pair_loss.h in float64.
#include "kernels/pair_loss.h"
#include "logits.h"

using namespace bat_fast;

template <typename T>
void check_pair(const Batch<T>& b, bool mart) {
  const auto adv = random_array<T>(b.z.size(), [](int64_t) { return 2 * normal(); });
  const auto wide_adv = widened<double>(adv);
  Logits<T> in = b.in();
  Logits<double> wide_in = b.wide_in();
  if (!mart) in.target = wide_in.target = nullptr;
  Array<T> grad(b.z.size()), grad_adv(b.z.size(), skip_of(b.classes));
  Array<float> per_sample(b.rows), loss(1);
  Array<double> want_grad(grad.size()), want_grad_adv(grad.size()), want(b.rows);
  LabelError error = {};
  pair_loss_cuda(in, adv.data(), 5.0f, 0.5f, per_sample.data(), loss.data(), grad.data(), grad_adv.data(), &error,
                 nullptr);
  pair_loss_cpu(wide_in, wide_adv.data(), 5.0, 0.5, want.data(), want_grad.data(), want_grad_adv.data(), 0, b.rows);
  expect_all_close("pair loss", per_sample, want, 3 * kSummed);
  expect_all_close("gradient of the clean row", grad, want_grad, 3 * kStored<T>);
  expect_all_close("gradient of the adversarial row", grad_adv, want_grad_adv, 3 * kStored<T>);
  expect_close("loss", 0, loss[0], weighted_mean_cpu<double>(nullptr, want.data(), b.rows, false).value, 3 * kSummed);
  if (mart) b.expect_report(error);
}

int main() {
  on_rows([](auto type, int64_t rows, int64_t classes) {
    Batch<decltype(type)> b(rows, classes, 2.0);
    check_pair(b, false);
    check_pair(b, true);
    b.spoil_labels();
    check_pair(b, true);
    b.spoil_numbers();
    check_pair(b, false);
  });
  return finish();
}
