// Torch face of row_loss.h.
#include "kernels/row_loss.h"

#include "rows.h"

namespace bat_fast {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> bat_loss(const Tensor& logits_, const Tensor& target_, double alpha,
                                                    const std::string& normalize) {
  check_rows({"logits", logits_}, target_);
  check_number("alpha", alpha, 0);
  check_word("normalize", normalize, {"weights", "batch"});
  const Tensor logits = packed(logits_), target = packed(target_);
  const ScalarType type = accumulator(logits);
  Tensor loss = new_tensor(logits, {}, type), total = new_tensor(logits, {}, type);
  Tensor weights = per_row(logits), per_sample = per_row(logits);
  Tensor norm = new_tensor(logits, {logits.size(0), 2}, type);  // RowNorm of each row
  const bool by_weights = normalize == "weights";
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          bat_rows_cpu(rows_of<T>(logits, target), static_cast<T>(alpha), pointer<T>(weights), pointer<T>(per_sample),
                       pointer<RowNorm<T>>(norm), begin, end);
        });
        const Mean<T> mean = weighted_mean_cpu(pointer<T>(weights), pointer<T>(per_sample), logits.size(0), by_weights);
        *pointer<T>(loss) = mean.value;
        *pointer<T>(total) = mean.total;
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        bat_rows_cuda(rows_of<T>(logits, target), static_cast<float>(alpha), by_weights, pointer<float>(weights),
                      pointer<float>(per_sample), pointer<RowNorm<float>>(norm), pointer<float>(loss),
                      pointer<float>(total), label_errors(), stream);
      });
  return {loss, weights, norm, total};
}
BAT_REGISTER(bat_loss, bat_loss)

Tensor bat_loss_backward(const Tensor& grad_loss, const Tensor& logits_, const Tensor& target_, const Tensor& weights_,
                         const Tensor& norm_, const Tensor& total) {
  const Named rows{"logits", logits_};
  check_rows(rows, target_);
  check_sizes({"weights", weights_}, {logits_.size(0)});
  check_sizes({"norm", norm_}, {logits_.size(0), 2});
  check_sizes({"grad_loss", grad_loss}, {});
  check_sizes({"total", total}, {});
  for (const Named& t : {Named{"weights", weights_}, {"norm", norm_}, {"grad_loss", grad_loss}, {"total", total}}) {
    check_type(t, accumulator(logits_));
    check_beside(t, rows);
  }
  const Tensor logits = packed(logits_), target = packed(target_);
  const Tensor weights = packed(weights_), norm = packed(norm_);
  Tensor grad = new_matrix(logits);
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        const T scale = *pointer<T>(grad_loss) / *pointer<T>(total);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          bat_backward_cpu(rows_of<T>(logits, target), pointer<T>(weights), pointer<RowNorm<T>>(norm), scale,
                           pointer<T>(grad), begin, end);
        });
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        bat_backward_cuda(rows_of<T>(logits, target), pointer<float>(weights), pointer<RowNorm<float>>(norm),
                          pointer<float>(grad_loss), pointer<float>(total), pointer<T>(grad), stream);
      });
  return grad;
}
BAT_REGISTER(bat_loss_backward, bat_loss_backward)

std::tuple<Tensor, Tensor, Tensor> soft_target_loss(const Tensor& logits_, const Tensor& soft_) {
  check_logits({"logits", logits_});
  check_same({"soft", soft_}, {"logits", logits_});
  const Tensor logits = packed(logits_), soft = packed(soft_);
  Tensor loss = new_tensor(logits, {}, accumulator(logits)), per_sample = per_row(logits), grad = new_matrix(logits);
  const double scale = 1.0 / static_cast<double>(logits.size(0));
  on_device(
      logits,
      [&](auto type) {
        using T = decltype(type);
        over_rows(logits, [&](int64_t begin, int64_t end) {
          soft_target_cpu(rows_of<T>(logits), pointer<T>(soft), static_cast<T>(scale), pointer<T>(per_sample),
                          pointer<T>(grad), begin, end);
        });
        *pointer<T>(loss) = weighted_mean_cpu<T>(nullptr, pointer<T>(per_sample), logits.size(0), false).value;
      },
      [&](auto type, void* stream) {
        using T = decltype(type);
        soft_target_cuda(rows_of<T>(logits), pointer<T>(soft), static_cast<float>(scale), pointer<float>(per_sample),
                         pointer<float>(loss), pointer<T>(grad), stream);
      });
  return {loss, per_sample, grad};
}
BAT_REGISTER(soft_target_loss, soft_target_loss)

}  // namespace
}  // namespace bat_fast
