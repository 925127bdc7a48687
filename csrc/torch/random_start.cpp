// Torch face of random_start.h.
#include "kernels/random_start.h"

#include <limits>

#include "bind.h"

namespace bat_fast {
namespace {

ImageLayout image_layout(const Tensor& t) {
  const int64_t samples = t.size(0);
  const int64_t pixels = samples ? t.numel() / samples : 0;
  if (t.is_contiguous()) return {samples, pixels, pixels, 1};
  return {samples, pixels, t.size(2) * t.size(3), t.size(1)};  // channels_last
}

Tensor random_start(const Tensor& clean_, const Tensor& index_, double eps, const std::string& norm, int64_t seed,
                    int64_t draw, double lo, double hi) {
  STD_TORCH_CHECK(clean_.dim() > 0, "bat_fast: clean must be a batch [N, ...], got a scalar");
  check_floating({"clean", clean_});
  check_ids({"index", index_}, clean_.size(0), {"clean", clean_});
  check_step(0, eps, lo, hi);
  check_word("norm", norm, {"linf", "l2", "gaussian"});
  check_integer("draw", draw, 0, std::numeric_limits<uint32_t>::max());
  const bool fits = clean_.is_contiguous() || is_channels_last(clean_);
  const Tensor clean = fits ? clean_ : packed(clean_);
  const Tensor index = packed(index_);
  Tensor out = torch::stable::empty_like(clean);
  const ImageLayout layout = image_layout(clean);
  const StartKey key = {static_cast<uint64_t>(seed), static_cast<uint32_t>(draw)};
  const bool uniform = norm == "linf", ball = norm == "l2";
  on_device(
      clean,
      [&](auto type) {
        using T = decltype(type);
        torch::stable::parallel_for(0, layout.samples, row_grain(layout.pixels), [&](int64_t begin, int64_t end) {
          const StartLimits<T> s = {static_cast<T>(eps), static_cast<T>(lo), static_cast<T>(hi)};
          if (uniform) {
            linf_start_cpu(pointer<T>(out), pointer<T>(clean), pointer<int64_t>(index), layout, begin, end, key, s);
          } else {
            normal_start_cpu(pointer<T>(out), pointer<T>(clean), pointer<int64_t>(index), layout, begin, end, key, ball,
                             s);
          }
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        const StartLimits<float> s = {static_cast<float>(eps), static_cast<float>(lo), static_cast<float>(hi)};
        if (uniform) {
          linf_start_cuda(pointer<T>(out), pointer<T>(clean), pointer<int64_t>(index), layout, key, s, stream);
        } else {
          normal_start_cuda(pointer<T>(out), pointer<T>(clean), pointer<int64_t>(index), layout, key, ball, s, stream);
        }
      });
  return out;
}
BAT_REGISTER(random_start, random_start)

}  // namespace
}  // namespace bat_fast
