// Runs the reductions of faults.cu; every sum is exact in float32.
#include "check.h"

void block_sums(const float* values, float* sums, int blocks);
void warp_sums(const float* values, float* sums, int blocks);

int main() {
  constexpr int blocks = 3, size = 64;
  const auto values = random_array<float>(blocks * size, [](double) { return std::floor(8 * uniform()); });
  Array<float> sums(blocks);
  for (const auto run : {block_sums, warp_sums}) {
    run(values.data(), sums.data(), blocks);
    for (int b = 0; b < blocks; ++b) {
      double want = 0;
      for (int i = 0; i < size; ++i) want += values[b * size + i];
      expect_close("sum", b, sums[b], want, 0);
    }
  }
  return finish();
}
