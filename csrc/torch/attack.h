// What the bindings that climb a loss share: its arguments as the kernels take them.
#pragma once

#include <utility>

#include "kernels/attack_grad.h"
#include "rows.h"

namespace bat_fast {

// What an attack takes behind its logits, of this size, in the type and on the device of `rows`.
inline void check_attack(const Tensor& rows, int64_t count, int64_t classes, const std::string& loss,
                         const std::optional<Tensor>& reference, const std::optional<Tensor>& soft, double soft_weight,
                         bool targeted, const std::optional<Tensor>& label) {
  check_word("loss", loss, {"ce", "margin", "dlr", "kl"});
  check_number("soft_weight", soft_weight);
  const bool dlr = loss == "dlr", kl = loss == "kl";
  const int64_t least = loss == "margin" ? 2 : dlr ? 3 + targeted : 0;
  STD_TORCH_CHECK(count == 0 || classes >= least, "bat_fast: ", loss, " needs at least ", least, " classes, got ",
                  classes);
  STD_TORCH_CHECK(!kl || reference.has_value(), "bat_fast: reference is missing: kl needs it");
  STD_TORCH_CHECK(!dlr || !targeted || label.has_value(), "bat_fast: label is missing: targeted dlr needs it");
  for (const auto& [name, given] : {std::pair{"reference", &reference}, {"soft", &soft}}) {
    if (!given->has_value()) continue;
    check_sizes({name, **given}, {count, classes});
    check_type({name, **given}, rows.scalar_type());
    check_beside({name, **given}, {"the logits", rows});
  }
  if (label) check_index({"label", *label}, count, classes, {"the logits", rows});
}

inline RowLoss row_loss_of(const std::string& name) {
  if (name == "margin") return RowLoss::kMargin;
  if (name == "dlr") return RowLoss::kDlr;
  return name == "kl" ? RowLoss::kKl : RowLoss::kCrossEntropy;
}

// The tensors are contiguous and outlive the result.
template <typename T>
Attack<T> attack_of(const std::string& loss, const std::optional<Tensor>& reference, const std::optional<Tensor>& soft,
                    double soft_weight, bool targeted, const std::optional<Tensor>& label) {
  return {row_loss_of(loss),
          targeted,
          pointer_or_null<int64_t>(label),
          pointer_or_null<T>(reference),
          pointer_or_null<T>(soft),
          static_cast<compute_t<T>>(soft_weight)};
}

}  // namespace bat_fast
