// The steps of an attack on sixteen images at a time, laid out as in window.h.
#pragma once

#include "kernels/perturb.h"
#include "kernels/window.h"

namespace bat_fast {

// One step of an attack on all lanes: bat_fast::linf_step, or l2_moved with the norms of each lane.
template <typename T>
BAT_CLONES void linf_lanes(T* adv, const T* grad, const T* clean, int64_t n, const StepLimits<T>& s) {
  for (int64_t i = 0; i < n; ++i) adv[i] = linf_step(adv[i], grad[i], clean[i], s);
}
template <typename T>
BAT_CLONES void l2_lanes(T* adv, const T* grad, const T* clean, int64_t n, const StepLimits<T>& s) {
  T gg[kImageLanes] = {}, dg[kImageLanes] = {}, dd[kImageLanes] = {}, unit[kImageLanes];
  L2Factors<T> factors[kImageLanes];
  for (int64_t lane = 0; lane < kImageLanes; ++lane) unit[lane] = T(1);
  const auto add = [&]() BAT_INLINE {
    for (int64_t i = 0; i < n; i += kImageLanes) {
      for (int64_t lane = 0; lane < kImageLanes; ++lane) {
        const T g = grad[i + lane] / unit[lane], d = adv[i + lane] - clean[i + lane];
        gg[lane] += g * g;
        dg[lane] += d * g;
        dd[lane] += d * d;
      }
    }
  };
  add();
  bool exact = true;
  for (int64_t lane = 0; lane < kImageLanes; ++lane) exact &= exact_squares(gg[lane]);
  if (!exact) {  // again, in units of the largest entry; 1 where it is 0 or all is well: that changes no bit
    T most[kImageLanes] = {};
    for (int64_t i = 0; i < n; ++i) most[i % kImageLanes] = maximum(most[i % kImageLanes], std::fabs(grad[i]));
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      unit[lane] = exact_squares(gg[lane]) || most[lane] == T(0) ? T(1) : most[lane];
      gg[lane] = dg[lane] = dd[lane] = T(0);
    }
    add();
  }
  for (int64_t lane = 0; lane < kImageLanes; ++lane)
    factors[lane] = l2_factors(L2Sums<T>{gg[lane], dg[lane], dd[lane], unit[lane]}, s);
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      adv[k] = l2_moved(adv[k] - clean[k], grad[k] / unit[lane], clean[k], factors[lane], s);
    }
  }
}

}  // namespace bat_fast
