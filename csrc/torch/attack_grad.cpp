// Torch face of attack_grad.h.
#include "attack.h"

namespace bat_fast {
namespace {

std::tuple<Tensor, Tensor> attack_grad(const Tensor& logits_, const Tensor& target_, const std::string& loss,
                                       const std::optional<Tensor>& reference_, const std::optional<Tensor>& soft_,
                                       double soft_weight, bool targeted, const std::optional<Tensor>& label_) {
  check_rows({"logits", logits_}, target_);
  check_attack(logits_, logits_.size(0), logits_.size(1), loss, reference_, soft_, soft_weight, targeted, label_);
  const Tensor logits = packed(logits_), target = packed(target_);
  const auto reference = packed(reference_), soft = packed(soft_), label = packed(label_);
  Tensor grad = new_matrix(logits), per_sample = per_row(logits);
  const auto attack = [&](auto type) {
    using T = decltype(type);
    return attack_of<T>(loss, reference, soft, soft_weight, targeted, label);
  };
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          attack_grad_cpu(rows_of<T>(logits, target), attack(type), pointer<T>(grad), pointer<T>(per_sample), begin,
                          end);
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        attack_grad_cuda(rows_of<T>(logits, target), attack(type), pointer<T>(grad), pointer<float>(per_sample),
                         label_errors(), stream);
      });
  return {grad, per_sample};
}
BAT_REGISTER(attack_grad, attack_grad)

}  // namespace
}  // namespace bat_fast
