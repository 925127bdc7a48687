// Small networks as the bindings that run them take them: the checked plan, images, threads.
#pragma once

#include "bind.h"
#include "kernels/network.h"
#include "plan.h"

namespace bat_fast {

// Compiled once, in network.cpp, as they take a while.
extern template void forward_lanes<float>(const Network<float>&, float*);
extern template void forward_lanes<double>(const Network<double>&, double*);
extern template void backward_lanes<float>(const Network<float>&, const float*, float*);
extern template void backward_lanes<double>(const Network<double>&, const double*, double*);

template <typename T>
Network<T> network(const Tensor& plan, const Tensor& weights, const Tensor& x, int64_t classes) {
  STD_TORCH_CHECK(plan.dim() == 2 && plan.size(0) > 0 && plan.size(1) == std::size(kColumns),
                  "plan must be [layers, columns] with the columns: ", column_names());
  Network<T> net{reinterpret_cast<const PlanLayer*>(pointer<int64_t>(plan)),
                 plan.size(0),
                 pointer<T>(weights),
                 {x.size(2), x.size(3), x.size(1)},
                 0};
  for (int64_t i = 0; i < net.count; ++i) {
    const PlanLayer& a = net.layers[i];
    STD_TORCH_CHECK(sane(a), "plan: layer ", i, " is unknown or too large");
    net.values = std::max({net.values, a.target + a.out.size(), a.before + a.out.size(), net.layers[0].into.size()});
  }
  for (int64_t i = 0; i < net.count; ++i) {
    STD_TORCH_CHECK(fits(net.layers[i], net.values, weights.numel()), "plan: layer ", i,
                    " reads or writes outside of the values or the weights");
  }
  const bool same = net.layers[0].source == 0 && net.layers[0].into.size() == net.images.size();
  STD_TORCH_CHECK(same, "plan is for images of another size");
  STD_TORCH_CHECK(net.classes() == classes, "plan is for ", net.classes(), " classes");
  return net;
}

// What the searches for misclassified images have in common: the images and their classes, the ball.
inline void check_search(const Tensor& adv, const Tensor& clean, const Tensor& y, const Tensor& plan,
                         const Tensor& weights, int64_t classes, double eps, double lo, double hi) {
  const Named moved{"adv", adv};
  check_network(moved, plan, weights, classes);
  check_same({"clean", clean}, moved);
  check_index({"y", y}, adv.size(0), classes, moved);
  check_step(eps, eps, lo, hi);
  check_alone(moved);
  for (const Named& t : {Named{"clean", clean}, {"weights", weights}}) check_apart(moved, t, false);
}

template <typename T, typename Given>
Images<T> images(Given& x) {
  return {pointer<std::remove_const_t<T>>(x), x.size(0), x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

template <typename F>
void over_chunks(const Tensor& x, F f) {
  torch::stable::parallel_for(0, (x.size(0) + kImageLanes - 1) / kImageLanes, 1, f);
}

}  // namespace bat_fast
