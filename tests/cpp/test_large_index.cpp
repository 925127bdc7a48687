// Elements past 2^31: the arrays are reserved and not filled, so that the few pages that are touched are all they cost.
#include <sys/mman.h>

#include "check.h"
#include "kernels/perturb.h"
#include "kernels/random_start.h"

using namespace bat_fast;

constexpr int64_t kBeyond = (int64_t{1} << 31) + 3;
constexpr int64_t kPixels = int64_t{1} << 20, kSample = kBeyond / kPixels + 1;  // a sample that lies beyond

float* reserve(int64_t count) {
  void* memory =
      mmap(nullptr, count * sizeof(float), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<float*>(memory);
}

int main() {
  const int64_t count = (kSample + 1) * kPixels;
  float *adv = reserve(count), *grad = reserve(count), *clean = reserve(count);
  if (adv == nullptr || grad == nullptr || clean == nullptr) {
    std::printf("no address space for arrays of 2^31 elements\n");
    return 1;
  }
  const StepLimits<float> step = {0.25f, 0.5f, 0.0f, 1.0f};
  for (int64_t i = kBeyond; i < kBeyond + 40; ++i) grad[i] = 1.0f;
  linf_step_cpu(adv, grad, clean, kBeyond, kBeyond + 40, step);
  for (int64_t i = kBeyond - 1; i <= kBeyond + 40; ++i) {
    expect(adv[i] == (i >= kBeyond && i < kBeyond + 40 ? 0.25f : 0.0f), "linf_step", i);
  }
  const int64_t first = kSample * kPixels;
  grad[first + 7] = 2.0f;
  l2_step_cpu(adv, grad, clean, kPixels, kSample, kSample + 1, step);
  expect(adv[first + 7] == 0.25f && adv[first + 8] == 0.0f, "l2_step", first);
  Array<int64_t> index(kSample + 1);
  index[kSample] = 5;
  const ImageLayout layout = {kSample + 1, kPixels, kPixels, 1};
  linf_start_cpu(adv, clean, index.data(), layout, kSample, kSample + 1, StartKey{1, 2}, {0.5f, -1.0f, 1.0f});
  Array<float> start(kPixels), image(kPixels);
  for (int64_t p = 0; p < kPixels; ++p) image[p] = 0.0f;
  const int64_t same[] = {5};
  linf_start_cpu(start.data(), image.data(), same, ImageLayout{1, kPixels, kPixels, 1}, 0, 1, StartKey{1, 2},
                 {0.5f, -1.0f, 1.0f});
  for (int64_t p = 0; p < kPixels; ++p) expect_same_bits("linf_start", p, adv[first + p], start[p]);
  // One image with more pixels than 2^31, channels last: where its last pixel lies.
  const ImageLayout wide = {1, 3 * (kBeyond + 1), kBeyond + 1, 3};
  expect(wide.offset(3 * (kBeyond + 1) - 1) == 3 * (kBeyond + 1) - 1, "offset of the last pixel");
  expect(wide.offset(kBeyond + 2) == 3 * 1 + 1, "offset in the second channel");
  expect(wide.blocks() == (3 * (kBeyond + 1) + 3) / 4, "blocks of random numbers");
  return finish();
}
