// Torch face of holistic.h.
#include "kernels/holistic.h"

#include <limits>

#include "bind.h"

namespace bat_fast {
namespace {

std::tuple<Tensor, Tensor, Tensor> holistic_loss(const Tensor& losses_, double alpha, double r,
                                                 const std::string& form) {
  check_floating({"losses", losses_});
  check_dims({"losses", losses_}, 1, "[N]");
  check_integer("the number of losses", losses_.size(0), 1, std::numeric_limits<int32_t>::max());
  check_number("alpha", alpha, 0);
  check_number("r", r, 0);
  check_word("form", form, {"hd", "hr"});
  const Tensor losses = packed(losses_);
  const int64_t n = losses.numel();
  const ScalarType accumulator = losses.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor loss = new_tensor(losses, {}, accumulator), weights = new_tensor(losses, {n + 1}, accumulator);
  Tensor grad = torch::stable::empty_like(losses), gaps = new_tensor(losses, {n}, ScalarType::Double);
  const Holistic problem = {alpha, r, form == "hr"};
  const auto samples = [&](auto type) {
    using T = decltype(type);
    return Samples<T>{pointer<T>(losses), n, pointer<double>(gaps), pointer<compute_t<T>>(weights), pointer<T>(grad)};
  };
  on_device(
      losses, [&](auto type) { holistic_cpu(samples(type), problem, pointer<decltype(type)>(loss)); },
      [&](auto type, void* stream) { holistic_cuda(samples(type), problem, pointer<float>(loss), stream); });
  return {loss, weights, grad};
}
BAT_REGISTER(holistic_loss, holistic_loss)

}  // namespace
}  // namespace bat_fast
