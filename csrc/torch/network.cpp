// Torch face of network.h, for the CPU alone. Tensors have been checked in bat_fast/ops/network.py, the plan is here.
#include "kernels/network.h"

#include "attack.h"
#include "small.h"

namespace bat_fast {

template void forward_lanes<float>(const Network<float>&, float*);
template void forward_lanes<double>(const Network<double>&, double*);
template void backward_lanes<float>(const Network<float>&, const float*, float*);
template void backward_lanes<double>(const Network<double>&, const double*, double*);

namespace {

bool within(int64_t begin, int64_t size, int64_t end) { return begin >= 0 && size >= 0 && begin <= end - size; }

}  // namespace

// Every layer reads and writes what is there.
bool fits(const PlanLayer& a, int64_t values, int64_t weights) {
  const Map &in = a.into, &out = a.out;
  const bool window = a.kind == LayerKind::kWindow, pool = a.kind == LayerKind::kMaxPool;
  for (const int64_t size : {in.height, in.width, in.channels, out.height, out.width, out.channels}) {
    if (size < 1 || size > values) return false;
  }
  if (!within(a.source, in.size(), values) || !within(a.target, out.size(), values)) return false;
  if (a.other >= 0 && !within(a.other, out.size(), values)) return false;
  if (a.activation == Activation::kSilu && !within(a.before, out.size(), values)) return false;
  if (a.bias >= 0 && !within(a.bias, out.channels, weights)) return false;
  if (window || pool) {
    const Window& w = a.window;
    if (w.height < 1 || w.width < 1 || w.height > weights + values || w.width > weights + values) return false;
    if (w.stride_y < 1 || w.stride_x < 1 || w.pad_y < 0 || w.pad_x < 0) return false;
    const int64_t size = w.height * w.width * in.channels * out.channels;
    if (window && !within(a.weight, size, weights)) return false;
    return window || in.channels == out.channels;
  }
  if (a.kind == LayerKind::kAffine && a.weight >= 0 && !within(a.weight, in.channels, weights)) return false;
  if (a.kind == LayerKind::kMean) return out.pixels() == 1 && in.channels == out.channels;
  return in.size() == out.size() && in.channels == out.channels;
}

namespace {

std::tuple<Tensor, Tensor> network_gradient(const Tensor& x, const std::optional<Tensor>& grad_, const Tensor& plan_,
                                            const Tensor& weights_, int64_t classes) {
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
