// The steps of AutoPGD for 32 images at a time, each with a step size of its own.
#pragma once

#include <limits>

#include "kernels/window.h"

namespace bat_fast {

// A gradient without NaN, and finite.
template <typename T>
BAT_HD T finite(T g) {
  constexpr T kMost = std::numeric_limits<T>::max();
  return g != g ? T(0) : minimum(maximum(g, -kMost), kMost);
}

// What a turn does to the lanes.
template <typename T>
struct Turn {
  alignas(64) T keep[kImageLanes], back[kImageLanes];  // not 0: x is the best so far; x goes back to the best
  alignas(64) T step[kImageLanes], share[kImageLanes];
};

// Keeps the best points and goes back to them; then `drift` is the step before. Each array holds n values.
template <typename T>
BAT_CLONES void best_lanes(T* x, T* grad, T* best, T* best_grad, T* old, T* drift, int64_t n, const Turn<T>& turn) {
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      const T g = finite(grad[k]), v = x[k];
      const T b = turn.keep[lane] != T(0) ? v : best[k], bg = turn.keep[lane] != T(0) ? g : best_grad[k];
      const T now = turn.back[lane] != T(0) ? b : v;
      best[k] = b;
      best_grad[k] = bg;
      grad[k] = turn.back[lane] != T(0) ? bg : g;
      drift[k] = now - old[k];
      old[k] = x[k] = now;
    }
  }
}

template <typename T>
BAT_CLONES void linf_move_lanes(T* x, const T* grad, const T* drift, const T* clean, int64_t n, T eps, T lo, T hi,
                                const Turn<T>& turn) {
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      const T low = minimum(maximum(clean[k] - eps, lo), hi), high = minimum(maximum(clean[k] + eps, lo), hi);
      const T sign = grad[k] > T(0) ? T(1) : grad[k] < T(0) ? T(-1) : T(0), share = turn.share[lane];
      const T goal = minimum(maximum(x[k] + turn.step[lane] * sign, low), high);
      x[k] = minimum(maximum(x[k] + (goal - x[k]) * share + drift[k] * (T(1) - share), low), high);
    }
  }
}

// What a vector with this sum of squares is multiplied by to be no longer than eps.
template <typename T>
BAT_HD T into_ball(T square, T eps) {
  const T length = std::sqrt(square);
  return minimum(length, eps) / (length + T(1e-12));
}

// `grad` is overwritten.
template <typename T>
BAT_CLONES void l2_move_lanes(T* x, T* grad, const T* drift, const T* clean, int64_t n, T eps, T lo, T hi,
                              const Turn<T>& turn) {
  T square[kImageLanes] = {}, factor[kImageLanes], away[kImageLanes] = {};
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) square[lane] += grad[i + lane] * grad[i + lane];
  }
  for (int64_t lane = 0; lane < kImageLanes; ++lane) {
    factor[lane] = turn.step[lane] / (std::sqrt(square[lane]) + T(1e-12));
  }
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      grad[k] = x[k] + factor[lane] * grad[k] - clean[k];
      away[lane] += grad[k] * grad[k];
    }
  }
  for (int64_t lane = 0; lane < kImageLanes; ++lane) {
    factor[lane] = into_ball(away[lane], eps);
    away[lane] = T(0);
  }
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      const T goal = minimum(maximum(clean[k] + grad[k] * factor[lane], lo), hi), share = turn.share[lane];
      grad[k] = x[k] + (goal - x[k]) * share + drift[k] * (T(1) - share) - clean[k];
      away[lane] += grad[k] * grad[k];
    }
  }
  for (int64_t lane = 0; lane < kImageLanes; ++lane) factor[lane] = into_ball(away[lane], eps);
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      x[k] = minimum(maximum(clean[k] + grad[k] * factor[lane], lo), hi);
    }
  }
}

}  // namespace bat_fast
