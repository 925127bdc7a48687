// What the bindings that climb a loss share: its arguments as the kernels take them.
#pragma once

#include "kernels/attack_grad.h"
#include "rows.h"

namespace bat_fast {

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
