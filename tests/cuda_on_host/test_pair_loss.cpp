// pair_loss.cu against the CPU twins of pair_loss.h in float64.
#include "kernels/pair_loss.h"
#include "logits.h"

using namespace bat_fast;

// Both gradients, and each alone: nothing is written where it is not wanted, which would be at null.
template <typename T, bool kMart>
void check_backward(const Batch<T>& b, Logits<T> in, Logits<double> wide_in, const Array<T>& adv,
                    const Array<Pair<float, kMart>>& rows, const Array<double>& wide_adv,
                    const Array<Pair<double, kMart>>& wide_rows) {
  const float grad_loss = -3.0f;
  Array<double> want(b.z.size()), want_adv(b.z.size());
  pair_backward_cpu(wide_in, wide_adv.data(), wide_rows.data(), 0.5, -3.0, want.data(), want_adv.data(), 0, b.rows);
  for (const int wanted : {3, 1, 2}) {
    Array<T> grad(b.z.size()), grad_adv(b.z.size(), skip_of(b.classes));
    pair_backward_cuda(in, adv.data(), rows.data(), 0.5f, &grad_loss, wanted & 1 ? grad.data() : nullptr,
                       wanted & 2 ? grad_adv.data() : nullptr, nullptr);
    if (wanted & 1) expect_all_close("gradient of the clean row", grad, want, 6 * kStored<T>);
    if (wanted & 2) expect_all_close("gradient of the adversarial row", grad_adv, want_adv, 6 * kStored<T>);
  }
}

template <bool kMart, typename T>
void check_pair(const Batch<T>& b) {
  const auto adv = random_array<T>(b.z.size(), [](int64_t) { return 2 * normal(); });
  const auto wide_adv = widened<double>(adv);
  Logits<T> in = b.in();
  Logits<double> wide_in = b.wide_in();
  if (!kMart) in.target = wide_in.target = nullptr;
  Array<float> per_sample(b.rows), loss(1);
  Array<Pair<float, kMart>> rows(b.rows);
  Array<double> want(b.rows);
  Array<Pair<double, kMart>> want_rows(b.rows);
  LabelError error = {};
  pair_rows_cuda(in, adv.data(), 5.0f, per_sample.data(), rows.data(), loss.data(), &error, nullptr);
  pair_rows_cpu(wide_in, wide_adv.data(), 5.0, want.data(), want_rows.data(), 0, b.rows);
  expect_all_close("pair loss", per_sample, want, 3 * kSummed);
  expect_close("loss", 0, loss[0], weighted_mean_cpu<double>(nullptr, want.data(), b.rows, false).value, 3 * kSummed);
  for (int64_t n = 0; n < b.rows; ++n) {
    expect(rows[n].other_class(b.classes) == want_rows[n].other_class(b.classes), "the other class", n);
  }
  if (kMart) b.expect_report(error);
  check_backward(b, in, wide_in, adv, rows, wide_adv, want_rows);
}

int main() {
  on_rows([](auto type, int64_t rows, int64_t classes) {
    Batch<decltype(type)> b(rows, classes, 2.0);
    check_pair<false>(b);
    check_pair<true>(b);
    b.spoil_labels();
    check_pair<true>(b);
    b.spoil_numbers();
    check_pair<false>(b);
  });
  return finish();
}
