// Torch face of row_loss.h. Arguments have been checked in bat_fast/ops/row_loss.py.
#include "kernels/row_loss.h"

#include "rows.h"

namespace bat_fast {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> bat_loss(const Tensor& logits_, const Tensor& target_, double alpha,
                                                    const std::string& normalize) {
  const Tensor logits = packed(logits_), target = packed(target_);
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
  const Tensor logits = packed(logits_), target = packed(target_);
  const Tensor norm = packed(norm_), scale = packed(scale_);
  Tensor grad = new_matrix(logits);
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

std::tuple<Tensor, Tensor, Tensor> soft_target_loss(const Tensor& logits_, const Tensor& soft_) {
  const Tensor logits = packed(logits_), soft = packed(soft_);
  Tensor loss = new_tensor(logits, {}, accumulator(logits)), per_sample = per_row(logits), grad = new_matrix(logits);
  const double scale = 1.0 / static_cast<double>(logits.size(0));
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          soft_target_cpu(Logits<T>{pointer<T>(logits), nullptr, logits.size(0), logits.size(1)}, pointer<T>(soft),
                          static_cast<T>(scale), pointer<T>(per_sample), pointer<T>(grad), begin, end);
        });
        *pointer<T>(loss) = weighted_mean_cpu<T>(nullptr, pointer<T>(per_sample), logits.size(0), false);
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        soft_target_cuda(Logits<T>{pointer<T>(logits), nullptr, logits.size(0), logits.size(1)}, pointer<T>(soft),
                         static_cast<float>(scale), pointer<float>(per_sample), pointer<float>(loss), pointer<T>(grad),
                         stream);
      });
  return {loss, per_sample, grad};
}
BAT_REGISTER(soft_target_loss, soft_target_loss)

}  // namespace
}  // namespace bat_fast
