// Torch face of network.h, for the CPU alone.
#include "kernels/network.h"

#include <limits>

#include "attack.h"
#include "small.h"

namespace bat_fast {

template void forward_lanes<float>(const Network<float>&, float*);
template void forward_lanes<double>(const Network<double>&, double*);
template void backward_lanes<float>(const Network<float>&, const float*, float*);
template void backward_lanes<double>(const Network<double>&, const double*, double*);

namespace {

std::tuple<Tensor, Tensor> network_gradient(const Tensor& x, const std::optional<Tensor>& grad_, const Tensor& plan_,
                                            const Tensor& weights_, int64_t classes) {
  check_network({"x", x}, plan_, weights_, classes);
  if (grad_) {
    check_sizes({"grad", *grad_}, {x.size(0), classes});
    check_type({"grad", *grad_}, x.scalar_type());
    check_beside({"grad", *grad_}, {"x", x});
  }
  const Tensor plan = packed(plan_), weights = packed(weights_);
  const auto grad = packed(grad_);
  Tensor grad_x = torch::stable::empty_like(x), logits = new_tensor(x, {x.size(0), classes}, x.scalar_type());
  on_cpu(x, [&](auto type) {
    using T = decltype(type);
    const Network<T> net = network<T>(plan, weights, x, classes);
    over_chunks(x, [&](int64_t begin, int64_t end) {
      network_gradient_cpu<T>(net, images<const T>(x), pointer_or_null<T>(grad), pointer<T>(logits), images<T>(grad_x),
                              begin, end);
    });
  });
  return {logits, grad_x};
}
BAT_REGISTER_CPU(network_gradient, network_gradient)

void network_attack_(Tensor adv, const Tensor& clean, const Tensor& target_, const Tensor& plan_,
                     const Tensor& weights_, int64_t classes, const std::string& loss,
                     const std::optional<Tensor>& reference_, const std::optional<Tensor>& soft_, double soft_weight,
                     bool targeted, const std::optional<Tensor>& label_, const std::string& norm, int64_t steps,
                     double step_size, double eps, double lo, double hi) {
  const Named moved{"adv", adv};
  check_network(moved, plan_, weights_, classes);
  check_same({"clean", clean}, moved);
  check_index({"target", target_}, adv.size(0), classes, moved);
  check_attack(adv, adv.size(0), classes, loss, reference_, soft_, soft_weight, targeted, label_);
  check_word("norm", norm, {"linf", "l2"});
  check_integer("steps", steps, 0, std::numeric_limits<int32_t>::max());
  check_step(step_size, eps, lo, hi);
  check_alone(moved);
  for (const Named& t : {Named{"clean", clean}, {"weights", weights_}}) check_apart(moved, t, false);
  const Tensor plan = packed(plan_), weights = packed(weights_), target = packed(target_);
  const auto reference = packed(reference_), soft = packed(soft_), label = packed(label_);
  on_cpu(adv, [&](auto type) {
    using T = decltype(type);
    const Network<T> net = network<T>(plan, weights, adv, classes);
    const Climb<T> how = {pointer<int64_t>(target),
                          attack_of<T>(loss, reference, soft, soft_weight, targeted, label),
                          {static_cast<T>(step_size), static_cast<T>(eps), static_cast<T>(lo), static_cast<T>(hi)},
                          norm == "l2",
                          steps};
    over_chunks(adv, [&](int64_t begin, int64_t end) {
      network_attack_cpu<T>(net, images<T>(adv), images<const T>(clean), how, begin, end);
    });
  });
}
BAT_REGISTER_CPU(network_attack_, network_attack_)

}  // namespace
}  // namespace bat_fast
