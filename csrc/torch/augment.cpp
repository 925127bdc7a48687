// Torch face of augment.h. Arguments have been checked in bat_fast/ops/augment.py.
#include "kernels/augment.h"

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

void crop_flip(Tensor out, const Tensor& images, const Tensor& index_, const Tensor& ids_, int64_t pad, bool reflect,
               int64_t seed, int64_t epoch, bool flip) {
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
