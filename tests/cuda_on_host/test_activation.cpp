// activation.cu against the element math of activation.h, bit for bit; the sum over beta_term against float64.
#include "check.h"
#include "kernels/activation.h"

using namespace bat_fast;

double input(int64_t i) {
  constexpr double special[] = {0.0, -0.0, 1e4, -1e4, 1e-7, 3e4};
  return i % 17 < 6 ? special[i % 17] : 3 * normal();
}

template <typename T, typename F>
void expect_values(const char* what, const Array<T>& x, const Array<T>& out, F f) {
  for (int64_t i = 0; i < x.size(); ++i) expect_same_bits(what, i, out[i], store<T>(f.value(load(x[i]))));
}
template <typename T, typename F>
void expect_slopes(const char* what, const Array<T>& grad, const Array<T>& x, const Array<T>& out, F f) {
  for (int64_t i = 0; i < x.size(); ++i) {
    expect_same_bits(what, i, out[i], store<T>(load(grad[i]) * f.slope(load(x[i]))));
  }
}

template <typename T>
void check(int64_t count, int skip_x, int skip_grad, int skip_out, float beta) {
  const auto x = Array<T>(random_array<T>(count, input), skip_x);
  const auto grad = Array<T>(random_array<T>(count, [](int64_t) { return normal(); }), skip_grad);
  Array<T> out(count, skip_out);
  Array<float> beta_raw(1), partial(kSumBlocks), grad_beta(1);
  beta_raw[0] = beta;
  const auto relu = SmoothRelu<float>::of(beta);
  smooth_relu_cuda(x.data(), beta_raw.data(), out.data(), count, nullptr);
  expect_values("smooth_relu", x, out, relu);

  Array<T> alone(count, skip_out), with_sum(count, skip_out);
  smooth_relu_backward_cuda<T>(grad.data(), x.data(), beta_raw.data(), alone.data(), nullptr, nullptr, count, nullptr);
  expect_slopes("smooth_relu gradient", grad, x, alone, relu);
  smooth_relu_backward_cuda(grad.data(), x.data(), beta_raw.data(), with_sum.data(), partial.data(), grad_beta.data(),
                            count, nullptr);
  expect_slopes("smooth_relu gradient with sum", grad, x, with_sum, relu);
  double sum = 0, size = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double term = static_cast<double>(load(grad[i])) * relu.beta_term(load(x[i]));
    sum += term * beta_factor(static_cast<double>(beta));
    size += std::abs(term * beta_factor(static_cast<double>(beta)));
  }
  expect(std::abs(grad_beta[0] - sum) <= 1e-6 * size, "gradient of beta", count);

  const Softplus<float> soft = {10.0f, 0.1f};
  softplus_cuda(x.data(), soft, out.data(), count, nullptr);
  expect_values("softplus", x, out, soft);
  softplus_backward_cuda(grad.data(), x.data(), soft, alone.data(), count, nullptr);
  expect_slopes("softplus gradient", grad, x, alone, soft);
}

template <typename T>
void check_type() {
  for (const int64_t count : {0, 1, 7, 8, 9, 1027, 2051}) check<T>(count, 0, 0, 0, 20.0f);
  check<T>(1027, 1, 0, 0, -0.5f);
  check<T>(1027, 0, 3, 0, 1e-3f);
  check<T>(1027, 0, 0, 2, 0.0f);
}

int main() {
  check_type<float>();
  check_type<half_bits>();
  check_type<bfloat_bits>();
  check<float>(256 * (kSumBlocks + 2), 1, 0, 0, 2.0f);  // more elements than threads of all blocks of the sum
  return finish();
}
