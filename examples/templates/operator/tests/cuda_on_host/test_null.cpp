// null.cu against the element math of null.h, bit for bit. Runs without a GPU: plain, and under the sanitizers.
#include "check.h"
#include "kernels/null.h"

using namespace bat_fast;

template <typename T>
void check(int64_t count, int skip) {  // `skip` misaligns the arrays, as a slice of a tensor may be
  const auto x = Array<T>(random_array<T>(count, [](int64_t) { return normal(); }), skip);
  Array<T> out(count, skip);
  null_scale_cuda(x.data(), 0.3f, out.data(), count, {});
  for (int64_t i = 0; i < count; ++i) {
    expect_same_bits("null_scale", i, out[i], store<T>(null_scaled(load(x[i]), 0.3f)));
  }
}

template <typename T>
void check_type() {
  for (const int64_t count : {0, 1, 255, 256, 257, 2051}) check<T>(count, 0);
  check<T>(1027, 1);
}

int main() {
  check_type<float>();
  check_type<half_bits>();
  check_type<bfloat_bits>();
  return finish();
}
