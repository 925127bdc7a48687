// What the bindings of row kernels share.
#pragma once

#include <array>

#include "bind.h"
#include "kernels/softmax.h"

namespace bat_fast {

template <typename T>
Logits<T> rows_of(const Tensor& logits, const std::optional<Tensor>& target = std::nullopt) {
  return {pointer<T>(logits), pointer_or_null<int64_t>(target), logits.size(0), logits.size(1)};
}

inline ScalarType accumulator(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}
inline Tensor per_row(const Tensor& logits) { return new_tensor(logits, {logits.size(0)}, accumulator(logits)); }

template <typename F>
void over_rows(const Tensor& logits, F f) {
  torch::stable::parallel_for(0, logits.size(0), row_grain(8 * logits.size(1)), f);  // an exponential is ~8 steps
}

inline std::optional<Tensor> packed(const std::optional<Tensor>& t) {
  return t.has_value() ? std::optional<Tensor>(packed(*t)) : std::nullopt;
}

// out = a b by torch's matrix product; `out` may be a part of a larger matrix.
inline void multiply(const Tensor& a, const Tensor& b, Tensor& out) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace bat_fast
