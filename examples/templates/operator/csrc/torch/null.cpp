// Torch face of null.h: memory, threads, dispatch. Arguments have been checked in bat_fast/ops/null.py.
#include "kernels/null.h"

#include "bind.h"

namespace bat_fast {
namespace {

Tensor null_scale(const Tensor& x_, double scale) {
  Tensor out = new_like(x_);
  const Tensor x = with_layout_of(x_, out);  // the same tensor, unless it has gaps: so the loops see dense memory
  on_device(
      x,
      [&](auto type) {
        using T = decltype(type);
        torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
          null_scale_cpu(pointer<T>(x), static_cast<T>(scale), pointer<T>(out), begin, end);
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        null_scale_cuda(pointer<T>(x), static_cast<float>(scale), pointer<T>(out), x.numel(), stream);
      });
  return out;
}
BAT_REGISTER(null_scale, null_scale)

}  // namespace
}  // namespace bat_fast
