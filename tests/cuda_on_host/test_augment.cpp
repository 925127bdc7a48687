// augment.cu against the element math of augment.h, bit for bit, and so against the loops of the CPU.
#include <vector>

#include "check.h"
#include "kernels/augment.h"

using namespace bat_fast;

template <typename T>
void check(int32_t height, int32_t width, int32_t channels, int32_t pad, bool reflect, int skip) {
  constexpr int64_t count = 4, samples = 5;
  const int32_t pixels = height * width * channels;
  Array<uint8_t> data(count * pixels);
  for (int64_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(256 * uniform());
  Array<int64_t> index(samples), ids(samples);
  for (int64_t n = 0; n < samples; ++n) {
    index[n] = n < 4 ? 3 - n : n % 2 ? -1 : count;  // the last one lies outside
    ids[n] = (1ll << 40) + n;
  }
  const ImageSet set = {data.data(), count, height, width, channels};
  const CropRule rule = {0x123456789abcdefull, 3, pad, reflect, true};
  for (const bool channels_last : {false, true}) {
    Array<T> out(samples * pixels, skip), loops(samples * pixels);
    crop_flip_cuda(set, index.data(), ids.data(), samples, out.data(), channels_last, rule, nullptr);
    std::vector<uint8_t> line(width * channels);
    const auto run = channels == 3 ? crop_flip_cpu<3, T> : channels == 1 ? crop_flip_cpu<1, T> : crop_flip_cpu<0, T>;
    run(set, index.data(), ids.data(), loops.data(), channels_last, rule, line.data(), 0, samples);
    for (int64_t i = 0; i < out.size(); ++i) {
      const int64_t n = i / pixels;
      const auto p = static_cast<int32_t>(i % pixels);
      const int32_t c = channels_last ? p % channels : p / (height * width);
      const int32_t at = channels_last ? p / channels : p % (height * width);
      const bool held = set.holds(index[n]);
      const uint8_t* image = data.data() + (held ? index[n] : 0) * pixels;
      const uint8_t byte = crop_pixel(set, image, draw_crop(rule, ids[n]), reflect, at / width, at % width, c);
      const float want = held ? static_cast<float>(byte) / 255.0f : NAN;
      expect_same_bits("crop_flip", i, out[i], store<T>(want));
      expect_same_bits("crop_flip_cpu", i, loops[i], store<T>(want));
    }
  }
}

// No image at all: every row is NaN, and nothing is read.
template <typename T>
void check_nothing() {
  const int64_t index = 0, id = 0;
  Array<T> out(8 * 8 * 3);
  const auto rule = CropRule{1, 2, 2, false, true};
  crop_flip_cuda(ImageSet{nullptr, 0, 8, 8, 3}, &index, &id, 1, out.data(), false, rule, nullptr);
  for (int64_t i = 0; i < out.size(); ++i) expect(std::isnan(load(out[i])), "no image", i);
}

template <typename T>
void check_type() {
  for (const bool reflect : {false, true}) {
    check<T>(8, 8, 3, 2, reflect, 0);
    check<T>(8, 8, 3, 2, reflect, 1);  // not aligned
    check<T>(5, 7, 3, 4, reflect, 0);
    check<T>(20, 24, 4, 3, reflect, 0);  // several blocks, vectors across rows
    check<T>(16, 12, 1, 1, reflect, 0);
    check<T>(45, 32, 3, 4, reflect, 0);  // rows in two blocks
    check<T>(1, 1, 1, 0, reflect, 0);
  }
  check_nothing<T>();
  check<T>(4, 6, 3, 30, false, 0);
  check<T>(2, 2736, 3, 1, false, 0);  // a row too long to be staged
}

int main() {
  for (int v = 0; v < 256; ++v) expect_same_bits("over_255", v, over_255(v), static_cast<float>(v) / 255.0f);
  check_type<float>();
  check_type<half_bits>();
  check_type<bfloat_bits>();
  return finish();
}
