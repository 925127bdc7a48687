// holistic.cu against the CPU twin of holistic.h in float64, where both forms have edges and cuts.
#include "kernels/holistic.h"
#include "logits.h"

using namespace bat_fast;

double plain(int64_t) { return -std::log(1 - uniform()); }
double tied(int64_t) { return std::floor(4 * uniform()); }
double shifted(int64_t i) { return 1e3 + plain(i); }
double equal(int64_t) { return 0.75; }

// The arrays of a problem, as misaligned as asked.
template <typename T>
struct Outputs {
  Array<compute_t<T>> weights;
  Array<T> grad;
  Array<double> gap;
  Outputs(int64_t n, int64_t skip) : weights(n + 1, skip), grad(n, skip), gap(n) {}
  Samples<T> samples(const Array<T>& losses) {
    return {losses.data(), losses.size(), gap.data(), weights.data(), grad.data()};
  }
};

template <typename T>
void check(const Array<T>& losses, Holistic problem) {
  const int64_t n = losses.size();
  const Array<double> wide = widened<double>(losses);
  Outputs<T> got(n, 1);
  Outputs<double> want(n, 0);
  Array<float> loss(1);
  Array<double> want_loss(1);
  holistic_cuda(got.samples(losses), problem, loss.data(), nullptr);
  holistic_cpu(want.samples(wide), problem, want_loss.data());
  const int failed = failures;
  const auto share = static_cast<double>(n);  // of the mass: weights of large batches are small
  for (int64_t i = 0; i <= n; ++i) {
    expect_close("weight", i, share * got.weights[i], share * want.weights[i], 2e-6);
  }
  for (int64_t i = 0; i < n; ++i) {
    expect_close("gradient", i, share * load(got.grad[i]), share * want.grad[i], kStored<T>);
  }
  expect_close("loss", 0, loss[0], want_loss[0], 1e-6);
  double sum = 0, finite = 0;
  for (int64_t i = 0; i <= n; ++i) sum += got.weights[i];
  for (int64_t i = 0; i < n; ++i) finite += wide[i] - wide[i];
  if (finite == 0) expect_close("sum of weights", 0, sum, 1, 1e-5);
  if (failures != failed) {
    std::printf("  with N = %d, alpha %g, r %g, %s\n", static_cast<int>(n), problem.alpha, problem.r,
                problem.hr ? "hr" : "hd");
  }
}

template <typename T>
Array<T> batch(int64_t n, double (*value)(int64_t)) {
  return Array<T>(random_array<T>(n, value), 1);
}

// Without a radius or without corruption, a cut in the middle, only the largest losses, only the worst atom.
template <typename T>
void check_edges(const Array<T>& losses) {
  constexpr double edges[][2] = {{0, 0},    {0, 0.2},   {1e-6, 1e-12}, {0.3, 0}, {0.3, 1e-3},
                                 {0.05, 1}, {0.6, 0.5}, {0.1, 1e9},    {1, 0.1}, {1.5, 0}};
  for (const auto& [alpha, r] : edges) {
    check(losses, {alpha, r, false});
    check(losses, {alpha, r, true});
  }
}

template <typename T>
void check_forms(const Array<T>& losses) {
  check(losses, {0.1, 0.1, false});
  check(losses, {0.1, 0.1, true});
}

int main() {
  check_edges(batch<float>(7, plain));
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // slow there, and few samples go the same ways
  check_edges(batch<float>(1500, tied));
#endif
  for (const int64_t n : {1, 2, 512, 1500}) check_forms(batch<float>(n, plain));
  for (const int64_t n : {7, 513}) check_forms(batch<float>(n, tied));
  check_forms(batch<float>(513, shifted));
  check_forms(batch<float>(513, equal));
  check_forms(batch<half_bits>(513, plain));
  check_forms(batch<bfloat_bits>(1500, plain));
  for (const double bad : {double{NAN}, double{INFINITY}, -double{INFINITY}}) {
    auto losses = batch<float>(513, plain);
    losses[512] = static_cast<float>(bad);
    check_forms(losses);
  }
  return finish();
}
