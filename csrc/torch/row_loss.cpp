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
Tensor per_row(const Tensor& logits) {
  return torch::stable::new_empty(logits, {logits.size(0)}, accumulator(logits));
}

template <typename F>
void over_rows(const Tensor& logits, F f) {
  torch::stable::parallel_for(0, logits.size(0), row_grain(8 * logits.size(1)), f);  // an exponential is ~8 steps
}

std::tuple<Tensor, Tensor> attack_grad(const Tensor& logits_, const Tensor& target_, const std::string& loss,
                                       bool targeted) {
  (void)loss;
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  Tensor grad = torch::stable::empty_like(logits), per_sample = per_row(logits);
  with_cpu_type(logits, [&](auto type) {
    using T = decltype(type);
    over_rows(logits, [&](int64_t begin, int64_t end) {
      ce_grad_cpu(rows_of<T>(logits, target), targeted ? T(-1) : T(1), pointer<T>(grad), pointer<T>(per_sample),
                  begin, end);
    });
  });
  return {grad, per_sample};
}
BAT_REGISTER_CPU(attack_grad, attack_grad)

std::tuple<Tensor, Tensor, Tensor, Tensor> bat_loss(const Tensor& logits_, const Tensor& target_, double alpha,
                                                    const std::string& normalize) {
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  Tensor weights = per_row(logits), per_sample = per_row(logits), lse = per_row(logits);
  Tensor loss = torch::stable::new_empty(weights, {});
  with_cpu_type(logits, [&](auto type) {
    using T = decltype(type);
    over_rows(logits, [&](int64_t begin, int64_t end) {
      bat_rows_cpu(rows_of<T>(logits, target), static_cast<T>(alpha), pointer<T>(weights), pointer<T>(per_sample),
                   pointer<T>(lse), begin, end);
    });
    *pointer<T>(loss) = weighted_mean_cpu(pointer<T>(weights), pointer<T>(per_sample), logits.size(0),
                                          normalize == "weights");
  });
  return {loss, weights, per_sample, lse};
}
BAT_REGISTER_CPU(bat_loss, bat_loss)

Tensor ce_backward(const Tensor& logits_, const Tensor& target_, const Tensor& lse_, const Tensor& scale_) {
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  const Tensor lse = torch::stable::contiguous(lse_), scale = torch::stable::contiguous(scale_);
  Tensor grad = torch::stable::empty_like(logits);
  with_cpu_type(logits, [&](auto type) {
    using T = decltype(type);
    over_rows(logits, [&](int64_t begin, int64_t end) {
      ce_backward_cpu(rows_of<T>(logits, target), pointer<T>(lse), pointer<T>(scale), pointer<T>(grad), begin, end);
    });
  });
  return grad;
}
BAT_REGISTER_CPU(ce_backward, ce_backward)

#if defined(BAT_FAST_CUDA)

std::tuple<Tensor, Tensor> attack_grad_on_cuda(const Tensor& logits_, const Tensor& target_, const std::string& loss,
                                               bool targeted) {
  (void)loss;
  const OnDevice device(logits_);
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  Tensor grad = torch::stable::empty_like(logits), per_sample = per_row(logits);
  with_cuda_type(logits, [&](auto type) {
    using T = decltype(type);
    ce_grad_cuda(rows_of<T>(logits, target), targeted ? -1.0f : 1.0f, pointer<T>(grad), pointer<float>(per_sample),
                 label_errors(), device.stream());
  });
  return {grad, per_sample};
}
BAT_REGISTER_CUDA(attack_grad, attack_grad_on_cuda)

std::tuple<Tensor, Tensor, Tensor, Tensor> bat_loss_on_cuda(const Tensor& logits_, const Tensor& target_,
                                                            double alpha, const std::string& normalize) {
  const OnDevice device(logits_);
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  Tensor weights = per_row(logits), per_sample = per_row(logits), lse = per_row(logits);
  Tensor loss = torch::stable::new_empty(weights, {});
  with_cuda_type(logits, [&](auto type) {
    using T = decltype(type);
    bat_rows_cuda(rows_of<T>(logits, target), static_cast<float>(alpha), normalize == "weights",
                  pointer<float>(weights), pointer<float>(per_sample), pointer<float>(lse), pointer<float>(loss),
                  label_errors(), device.stream());
  });
  return {loss, weights, per_sample, lse};
}
BAT_REGISTER_CUDA(bat_loss, bat_loss_on_cuda)

Tensor ce_backward_on_cuda(const Tensor& logits_, const Tensor& target_, const Tensor& lse_, const Tensor& scale_) {
  const OnDevice device(logits_);
  const Tensor logits = torch::stable::contiguous(logits_), target = torch::stable::contiguous(target_);
  const Tensor lse = torch::stable::contiguous(lse_), scale = torch::stable::contiguous(scale_);
  Tensor grad = torch::stable::empty_like(logits);
  with_cuda_type(logits, [&](auto type) {
    using T = decltype(type);
    ce_backward_cuda(rows_of<T>(logits, target), pointer<float>(lse), pointer<float>(scale), pointer<T>(grad),
                     device.stream());
  });
  return grad;
}
BAT_REGISTER_CUDA(ce_backward, ce_backward_on_cuda)

#endif

}  // namespace
}  // namespace bat_fast
