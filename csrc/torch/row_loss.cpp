// Torch face of row_loss.h. Arguments have been checked in bat_fast/ops/row_loss.py.
#include "kernels/row_loss.h"

#include "bind.h"

namespace bat_fast {
namespace {

template <typename T>
Logits<T> rows_of(const Tensor& logits, const Tensor& target) {
  return {pointer<T>(logits), pointer<int64_t>(target), logits.size(0), logits.size(1)};
}

ScalarType accumulator(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}
Tensor per_row(const Tensor& logits) { return new_tensor(logits, {logits.size(0)}, accumulator(logits)); }

template <typename F>
void over_rows(const Tensor& logits, F f) {
  torch::stable::parallel_for(0, logits.size(0), row_grain(8 * logits.size(1)), f);  // an exponential is ~8 steps
}

std::tuple<Tensor, Tensor> attack_grad(const Tensor& logits_, const Tensor& target_, const std::string& /*loss*/,
                                       bool targeted) {
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  Tensor grad = torch::stable::empty_like(logits), per_sample = per_row(logits);
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          ce_grad_cpu(rows_of<T>(logits, target), targeted ? T(-1) : T(1), pointer<T>(grad), pointer<T>(per_sample),
                      begin, end);
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        ce_grad_cuda(rows_of<T>(logits, target), targeted ? -1.0f : 1.0f, pointer<T>(grad), pointer<float>(per_sample),
                     label_errors(), stream);
      });
  return {grad, per_sample};
}
BAT_REGISTER(attack_grad, attack_grad)

std::tuple<Tensor, Tensor, Tensor, Tensor> bat_loss(const Tensor& logits_, const Tensor& target_, double alpha,
                                                    const std::string& normalize) {
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  Tensor loss = new_tensor(logits, {}, accumulator(logits));
  Tensor weights = per_row(logits), per_sample = per_row(logits);
  Tensor norm = new_tensor(logits, {logits.size(0), 2}, accumulator(logits));  // RowNorm of each row
  const bool by_weights = normalize == "weights";
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          bat_rows_cpu(rows_of<T>(logits, target), static_cast<T>(alpha), pointer<T>(weights), pointer<T>(per_sample),
                       pointer<RowNorm<T>>(norm), begin, end);
        });
        *pointer<T>(loss) = weighted_mean_cpu(pointer<T>(weights), pointer<T>(per_sample), logits.size(0), by_weights);
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        bat_rows_cuda(rows_of<T>(logits, target), static_cast<float>(alpha), by_weights, pointer<float>(weights),
                      pointer<float>(per_sample), pointer<RowNorm<float>>(norm), pointer<float>(loss), label_errors(),
                      stream);
      });
  return {loss, weights, per_sample, norm};
}
BAT_REGISTER(bat_loss, bat_loss)

Tensor ce_backward(const Tensor& logits_, const Tensor& target_, const Tensor& norm_, const Tensor& scale_) {
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  const Tensor norm = torch::stable::contiguous(norm_), scale = torch::stable::contiguous(scale_);
  Tensor grad = torch::stable::empty_like(logits);
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          ce_backward_cpu(rows_of<T>(logits, target), pointer<RowNorm<T>>(norm), pointer<T>(scale), pointer<T>(grad),
                          begin, end);
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        ce_backward_cuda(rows_of<T>(logits, target), pointer<RowNorm<float>>(norm), pointer<float>(scale),
                         pointer<T>(grad), stream);
      });
  return grad;
}
BAT_REGISTER(ce_backward, ce_backward)

}  // namespace
}  // namespace bat_fast
