// Torch face of pair_loss.h.
#include "kernels/pair_loss.h"

#include "rows.h"

namespace bat_fast {
namespace {

// target is absent for TRADES. The gradients hold 1 / N.
std::tuple<Tensor, Tensor, Tensor, Tensor> pair_loss(const Tensor& clean_, const Tensor& adv_,
                                                     const std::optional<Tensor>& target_, double beta) {
  check_logits({"clean", clean_});
  check_same({"adv", adv_}, {"clean", clean_});
  check_number("beta", beta);
  if (target_) check_rows({"clean", clean_}, *target_);
  const Tensor clean = packed(clean_), adv = packed(adv_);
  const auto target = packed(target_);
  Tensor loss = new_tensor(clean, {}, accumulator(clean)), per_sample = per_row(clean);
  Tensor grad_clean = new_matrix(clean), grad_adv = new_matrix(clean);
  const double scale = 1.0 / static_cast<double>(clean.size(0));
  const auto rows = [&](auto type) {
    using T = decltype(type);
    return Logits<T>{pointer<T>(clean), pointer_or_null<int64_t>(target), clean.size(0), clean.size(1)};
  };
  on_device(
      clean,
      [&](auto type) {
        using T = decltype(type);
        over_rows(clean, [&](int64_t begin, int64_t end) {
          pair_loss_cpu(rows(type), pointer<T>(adv), static_cast<T>(beta), static_cast<T>(scale),
                        pointer<T>(per_sample), pointer<T>(grad_clean), pointer<T>(grad_adv), begin, end);
        });
        *pointer<T>(loss) = weighted_mean_cpu<T>(nullptr, pointer<T>(per_sample), clean.size(0), false).value;
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        pair_loss_cuda(rows(type), pointer<T>(adv), static_cast<float>(beta), static_cast<float>(scale),
                       pointer<float>(per_sample), pointer<float>(loss), pointer<T>(grad_clean), pointer<T>(grad_adv),
                       label_errors(), stream);
      });
  return {loss, per_sample, grad_clean, grad_adv};
}
BAT_REGISTER(pair_loss, pair_loss)

}  // namespace
}  // namespace bat_fast
