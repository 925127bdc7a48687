// Torch face of soft_labels.h. Arguments have been checked in bat_fast/ops/soft_labels.py.
#include "kernels/soft_labels.h"

#include <algorithm>

#include "bind.h"

namespace bat_fast {
namespace {

Tensor ensemble_targets_(Tensor memory_, const Tensor& index_, const Tensor& logits_, double momentum) {
  const Tensor index = packed(index_), logits = packed(logits_);
  Tensor memory = packed(memory_);  // itself where it is already
  const int64_t samples = memory.size(0), rows = logits.size(0), classes = logits.size(1);
  Tensor targets = new_tensor(logits, {rows, classes}, memory.scalar_type());
  const auto ensemble = [&](auto type, auto kept) {
    using T = decltype(type);
    using M = decltype(kept);
    return Ensemble<T, M>{pointer<M>(memory),
                          pointer<int64_t>(index),
                          pointer<T>(logits),
                          pointer<M>(targets),
                          samples,
                          rows,
                          classes,
                          static_cast<M>(momentum)};
  };
  on_device(
      logits,
      [&](auto type) {
        const int64_t parts = std::clamp<int64_t>(rows * classes * 8 / kGrain, 1, kShards);  // an exp is ~8 steps
        torch::stable::parallel_for(0, kShards, (kShards + parts - 1) / parts, [&](int64_t begin, int64_t end) {
          ensemble_cpu(ensemble(type, type), begin, end);
        });
      },
      [&](auto type, void* stream) { ensemble_cuda(ensemble(type, float{}), stream); });
  if (!memory_.is_contiguous()) torch::stable::copy_(memory_, memory);
  return targets;
}
BAT_REGISTER(ensemble_targets_, ensemble_targets_)

}  // namespace
}  // namespace bat_fast
