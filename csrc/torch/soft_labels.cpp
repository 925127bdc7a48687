// Torch face of soft_labels.h.
#include "kernels/soft_labels.h"

#include <algorithm>

#include "rows.h"

namespace bat_fast {
namespace {

Tensor ensemble_targets_(Tensor memory_, const Tensor& index_, const Tensor& logits_, double momentum) {
  const Named given{"logits", logits_}, kept{"memory", memory_};
  check_logits(given);
  check_dims(kept, 2, "[samples, C]");
  check_sizes(kept, {memory_.size(0), logits_.size(1)});
  check_type(kept, accumulator(logits_));
  check_beside(kept, given);
  check_index({"index", index_}, logits_.size(0), memory_.size(0), given);
  check_number("momentum", momentum, 0, 1);
  check_alone(kept);
  check_apart(kept, given);
  check_apart(kept, {"index", index_});
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
