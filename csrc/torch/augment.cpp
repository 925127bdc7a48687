// Torch face of augment.h.
#include "kernels/augment.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "bind.h"

namespace bat_fast {
namespace {

// Calls f with the number of channels as a constant, 0 for an unusual one.
template <typename F>
void with_channels(int64_t channels, F f) {
  switch (channels) {
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    default:
      return f(std::integral_constant<int, 0>{});
  }
}

void check_set(const Tensor& images, const Tensor& index, const Tensor& ids, int64_t count) {
  const Named set{"images", images};
  check_type(set, ScalarType::Byte);
  check_dims(set, 4, "[M, H, W, C]");
  int64_t pixels = 1;
  for (int64_t i = 1; i < 4; ++i) {
    check_integer("a size of an image", images.size(i), 1, (int64_t{1} << 30) - 1);
    pixels *= images.size(i);
    check_integer("the values of an image", pixels, 1, (int64_t{1} << 30) - 1);
  }
  STD_TORCH_CHECK(images.is_contiguous(), "bat_fast: images must be contiguous: call .contiguous() once");
  check_index({"index", index}, count, images.size(0), set);
  check_ids({"sample_ids", ids}, count, set);
}

void check_rule(const Tensor& images, int64_t pad, bool reflect, int64_t epoch) {
  check_integer("pad", pad, 0, 1 << 20);
  if (reflect) check_integer("pad of a reflection", pad, 0, std::min(images.size(1), images.size(2)) - 1);
  check_integer("epoch", epoch, 0, std::numeric_limits<uint32_t>::max());
}

void crop_flip(Tensor out, const Tensor& images, const Tensor& index_, const Tensor& ids_, int64_t pad, bool reflect,
               int64_t seed, int64_t epoch, bool flip) {
  check_set(images, index_, ids_, out.dim() ? out.size(0) : 0);
  check_rule(images, pad, reflect, epoch);
  const Named batch{"out", out};
  check_sizes(batch, {index_.size(0), images.size(3), images.size(1), images.size(2)});
  check_floating(batch);
  check_beside(batch, {"images", images});
  STD_TORCH_CHECK(out.is_contiguous() || is_channels_last(out), "bat_fast: out must be contiguous or channels_last");
  for (const Named& t : {Named{"images", images}, {"index", index_}, {"sample_ids", ids_}}) check_apart(batch, t);
  const Tensor index = packed(index_), ids = packed(ids_);
  const auto size = [&](int64_t dim) { return static_cast<int32_t>(images.size(dim)); };
  const ImageSet set = {pointer<uint8_t>(images), images.size(0), size(1), size(2), size(3)};
  const CropRule rule = {static_cast<uint64_t>(seed), static_cast<uint32_t>(epoch), static_cast<int32_t>(pad), reflect,
                         flip};
  const bool channels_last = !out.is_contiguous();
  const int64_t samples = index.size(0);
  on_device(
      out,
      [&](auto type) {
        using T = decltype(type);
        T* to = pointer<T>(out);
        with_channels(set.channels, [&](auto channels) {
          torch::stable::parallel_for(0, samples, row_grain(set.pixels()), [&](int64_t begin, int64_t end) {
            std::vector<uint8_t> line(static_cast<size_t>(set.width * set.channels));
            crop_flip_cpu<channels()>(set, pointer<int64_t>(index), pointer<int64_t>(ids), to, channels_last, rule,
                                      line.data(), begin, end);
          });
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        crop_flip_cuda(set, pointer<int64_t>(index), pointer<int64_t>(ids), samples, pointer<T>(out), channels_last,
                       rule, stream);
      },
      CudaTypes{});  // a batch in 16 bits is written as such on a CPU too
}
BAT_REGISTER(crop_flip, crop_flip)

}  // namespace
}  // namespace bat_fast
