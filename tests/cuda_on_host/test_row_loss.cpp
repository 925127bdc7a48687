// row_loss.cu against the CPU twins of row_loss.h in float64.
#include "check.h"
#include "kernels/row_loss.h"

using namespace bat_fast;

template <typename T>
constexpr double kStored = std::is_same_v<T, float>       ? 3e-6
                           : std::is_same_v<T, half_bits> ? 1e-3
                                                          : 8e-3;

template <typename T>
struct Problem {
  Array<T> z;
  Array<double> wide;
  Array<int64_t> target;
  int64_t rows, classes;

  Problem(int64_t rows, int64_t classes, double scale)
      : z(random_array<T>(rows * classes, [=](int64_t) { return scale * normal(); }), 1),
        wide(widened<double>(z)),
        target(rows),
        rows(rows),
        classes(classes) {
    for (int64_t n = 0; n < rows; ++n) target[n] = static_cast<int64_t>(generator()() % classes);
  }
  Logits<T> narrow_in() const { return {z.data(), target.data(), rows, classes}; }
  Logits<double> wide_in() const { return {wide.data(), target.data(), rows, classes}; }
};

// Labels outside [0, classes) give NaN in their rows only, and one of them is reported.
template <typename T>
void spoil_labels(Problem<T>& p) {
  p.target[0] = -(1ll << 40);
  p.target[p.rows - 1] = p.classes;
}
template <typename T>
void expect_report(const LabelError& error, const Problem<T>& p, bool spoiled) {
  expect(error.seen == spoiled, "a wrong label is reported");
  if (!spoiled) return;
  expect(error.row == 0 || error.row == p.rows - 1, "the row of a wrong label", error.row);
  expect(error.label == p.target[error.row], "the label of that row", error.label);
}

template <typename T>
void check_ce_grad(Problem<T>& p, bool spoiled, float sign) {
  if (spoiled) spoil_labels(p);
  Array<T> grad(p.rows * p.classes, 1);
  Array<float> per_sample(p.rows);
  Array<double> want_grad(grad.size()), want(p.rows);
  LabelError error = {};
  ce_grad_cuda(p.narrow_in(), sign, grad.data(), per_sample.data(), &error, nullptr);
  ce_grad_cpu<double>(p.wide_in(), sign, want_grad.data(), want.data(), 0, p.rows);
  for (int64_t i = 0; i < grad.size(); ++i) expect_close("ce grad", i, load(grad[i]), want_grad[i], kStored<T>);
  for (int64_t n = 0; n < p.rows; ++n) expect_close("ce", n, per_sample[n], want[n], 3e-6);
  expect_report(error, p, spoiled);
}

template <typename T>
void check_bat_rows(Problem<T>& p, bool spoiled, bool by_weights) {
  if (spoiled) spoil_labels(p);
  Array<float> weights(p.rows), per_sample(p.rows), loss(1);
  Array<RowNorm<float>> norm(p.rows);
  Array<double> want_weights(p.rows), want(p.rows);
  Array<RowNorm<double>> want_norm(p.rows);
  LabelError error = {};
  bat_rows_cuda(p.narrow_in(), 1.5f, by_weights, weights.data(), per_sample.data(), norm.data(), loss.data(), &error,
                nullptr);
  bat_rows_cpu(p.wide_in(), 1.5, want_weights.data(), want.data(), want_norm.data(), 0, p.rows);
  const double mean = weighted_mean_cpu(want_weights.data(), want.data(), p.rows, by_weights);
  for (int64_t n = 0; n < p.rows; ++n) {
    expect_close("weight", n, weights[n], want_weights[n], 3e-6);
    expect_close("cross-entropy", n, per_sample[n], want[n], 3e-6);
    if (!valid_label(p.target[n], p.classes)) continue;
    expect_close("top", n, norm[n].top, want_norm[n].top, 0);
    expect_close("log sum", n, norm[n].log_sum, want_norm[n].log_sum, 3e-6);
  }
  expect_close("loss", 0, loss[0], mean, 3e-6);
  expect_report(error, p, spoiled);
  if (spoiled) return;

  const auto scale = random_array<float>(p.rows, [](int64_t) { return normal(); });
  const auto wide_scale = widened<double>(scale);
  Array<T> grad(p.rows * p.classes);
  Array<double> want_grad(grad.size());
  ce_backward_cuda(p.narrow_in(), norm.data(), scale.data(), grad.data(), nullptr);
  ce_backward_cpu(p.wide_in(), want_norm.data(), wide_scale.data(), want_grad.data(), 0, p.rows);
  for (int64_t i = 0; i < grad.size(); ++i) expect_close("backward", i, load(grad[i]), want_grad[i], kStored<T>);
}

template <typename T>
void check_all() {
  // A warp per row below 2048 classes, with the last block not full; above, a block.
  for (const int64_t classes : {1, 2, 31, 32, 33, 100, 2047, 2048, 2500}) {
    const int64_t rows = classes < 2047 ? 11 : 3;
    for (const double scale : {1.0, 100.0}) {
      Problem<T> p(rows, classes, scale);
      check_ce_grad(p, false, 1.0f);
      check_bat_rows(p, false, scale == 1.0);
    }
    Problem<T> p(rows, classes, 3.0);
    check_ce_grad(p, true, -1.0f);
    check_bat_rows(p, true, false);
  }
  // The mean over more rows than its block has threads.
  Problem<T> many(300, 3, 2.0);
  check_bat_rows(many, false, true);
}

int main() {
  check_all<float>();
  check_all<half_bits>();
  check_all<bfloat_bits>();
  return finish();
}
