// Torch face of pair_loss.h.
#include "kernels/pair_loss.h"

#include "rows.h"

namespace bat_fast {
namespace {

constexpr int64_t kNumbers = sizeof(Pair<float, true>) / sizeof(float);  // that are saved of each row

// target is absent for TRADES.
void check_pair(const Tensor& clean, const Tensor& adv, const std::optional<Tensor>& target) {
  const Named rows{"clean", clean};
  check_logits(rows);
  check_same({"adv", adv}, rows);
  if (!target) return;
  check_rows(rows, *target);
  check_integer("the number of classes", clean.size(1), 0, 1 << 24);  // a float32 holds the number of one
}

template <typename T>
T* pointer_if(bool wanted, Tensor& t) {
  return wanted ? pointer<T>(t) : nullptr;
}

// Calls f(mart) with a std::bool_constant.
template <typename F>
void of_kind(const std::optional<Tensor>& target, F f) {
  target ? f(std::true_type{}) : f(std::false_type{});
}

std::tuple<Tensor, Tensor, Tensor> pair_loss(const Tensor& clean_, const Tensor& adv_,
                                             const std::optional<Tensor>& target_, double beta) {
  check_pair(clean_, adv_, target_);
  check_number("beta", beta);
  const Tensor clean = packed(clean_), adv = packed(adv_);
  const auto target = packed(target_);
  const int64_t count = clean.size(0);
  const ScalarType type = accumulator(clean);
  Tensor loss = new_tensor(clean, {}, type), per_sample = per_row(clean);
  Tensor rows = new_tensor(clean, {count, kNumbers}, type);
  of_kind(target, [&](auto mart) {
    on_device(
        clean,
        [&](auto type) {
          using T = decltype(type);
          over_rows(clean, [&](int64_t begin, int64_t end) {
            pair_rows_cpu(rows_of<T>(clean, target), pointer<T>(adv), static_cast<T>(beta), pointer<T>(per_sample),
                          pointer<Pair<T, mart>>(rows), begin, end);
          });
          *pointer<T>(loss) = weighted_mean_cpu<T>(nullptr, pointer<T>(per_sample), count, false).value;
        },
        [&](auto type, void* stream) {
          using T = decltype(type);
          pair_rows_cuda(rows_of<T>(clean, target), pointer<T>(adv), static_cast<float>(beta),
                         pointer<float>(per_sample), pointer<Pair<float, mart>>(rows), pointer<float>(loss),
                         label_errors(), stream);
        });
  });
  return {loss, per_sample, rows};
}
BAT_REGISTER(pair_loss, pair_loss)

// A gradient that is not wanted has no rows.
std::tuple<Tensor, Tensor> pair_loss_backward(const Tensor& grad_loss, const Tensor& clean_, const Tensor& adv_,
                                              const std::optional<Tensor>& target_, const Tensor& rows_,
                                              bool wants_clean, bool wants_adv) {
  check_pair(clean_, adv_, target_);
  const int64_t count = clean_.size(0), classes = clean_.size(1);
  check_sizes({"rows", rows_}, {count, kNumbers});
  check_sizes({"grad_loss", grad_loss}, {});
  for (const Named& t : {Named{"rows", rows_}, {"grad_loss", grad_loss}}) {
    check_type(t, accumulator(clean_));
    check_beside(t, {"clean", clean_});
  }
  const Tensor clean = packed(clean_), adv = packed(adv_), rows = packed(rows_);
  const auto target = packed(target_);
  const auto gradient = [&](bool wanted) {
    return new_tensor(clean, {wanted ? count : 0, classes}, clean.scalar_type());
  };
  Tensor grad_clean = gradient(wants_clean), grad_adv = gradient(wants_adv);
  const double scale = 1.0 / static_cast<double>(count);
  of_kind(target, [&](auto mart) {
    on_device(
        clean,
        [&](auto type) {
          using T = decltype(type);
          over_rows(clean, [&](int64_t begin, int64_t end) {
            pair_backward_cpu(rows_of<T>(clean, target), pointer<T>(adv), pointer<Pair<T, mart>>(rows),
                              static_cast<T>(scale), *pointer<T>(grad_loss), pointer_if<T>(wants_clean, grad_clean),
                              pointer_if<T>(wants_adv, grad_adv), begin, end);
          });
        },
        [&](auto type, void* stream) {
          using T = decltype(type);
          pair_backward_cuda(rows_of<T>(clean, target), pointer<T>(adv), pointer<Pair<float, mart>>(rows),
                             static_cast<float>(scale), pointer<float>(grad_loss),
                             pointer_if<T>(wants_clean, grad_clean), pointer_if<T>(wants_adv, grad_adv), stream);
        });
  });
  return {grad_clean, grad_adv};
}
BAT_REGISTER(pair_loss_backward, pair_loss_backward)

}  // namespace
}  // namespace bat_fast
