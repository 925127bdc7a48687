// The layers of a small network with constant weights, forward and backward, for 32 images at a time. The values
// of one chunk stay in the cache through all layers.
#pragma once

#include <algorithm>

#include "kernels/window.h"

namespace bat_fast {

enum class LayerKind : int64_t { kWindow, kAffine, kMaxPool, kMean, kSum };
enum class Activation : int64_t { kNone, kRelu, kSilu };

// One layer of a plan, all int64; csrc/torch/plan.h names the members. Values and weights are named by where they
// begin.
struct PlanLayer {
  LayerKind kind;
  int64_t source;         // the map that it reads
  int64_t other;          // what is added before the activation; < 0: nothing
  int64_t before;         // where the sum before a SiLU stays; that of a ReLU is not needed
  int64_t target;         // the map that it writes
  Activation activation;  // at the end
  Map into, out;
  Window window;
  int64_t weight;                   // [out][window pixel][in]; affine: scale [channels], < 0: 1
  int64_t bias;                     // [out channels]; < 0: none
  int64_t adds_source, adds_other;  // whether a later layer has written the gradient there already
};

template <typename T>
struct Network {
  const PlanLayer* layers;
  int64_t count;
  const T* weights;
  Map images;      // the first map
  int64_t values;  // of one image, in all maps
  int64_t classes() const { return layers[count - 1].out.size(); }
};

// --- The steps of a layer; `n` counts the values of all lanes. ----------------------------------------------------

template <typename T>
BAT_CLONES void activate_lanes(Activation activation, const T* z, T* y, int64_t n) {
  if (activation == Activation::kRelu) {
    for (int64_t i = 0; i < n; ++i) y[i] = maximum(z[i], T(0));
  } else if (activation == Activation::kSilu) {
    for (int64_t i = 0; i < n; ++i) y[i] = z[i] / (T(1) + fast_exp(minimum(-z[i], T(80))));
  }
}

// grad *= derivative of the activation, given its output for ReLU and its argument for SiLU.
template <typename T>
BAT_CLONES void slope_lanes(Activation activation, const T* kept, T* grad, int64_t n) {
  if (activation == Activation::kRelu) {
    for (int64_t i = 0; i < n; ++i) grad[i] = kept[i] > T(0) ? grad[i] : T(0);
  } else if (activation == Activation::kSilu) {
    for (int64_t i = 0; i < n; ++i) {
      const T s = T(1) / (T(1) + fast_exp(minimum(-kept[i], T(80))));
      grad[i] *= s * (T(1) + kept[i] * (T(1) - s));
    }
  }
}

// to = or += from
template <typename T>
BAT_CLONES void add_lanes(const T* from, bool add, T* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = add ? to[i] + from[i] : from[i];
}

// to = or += from scale[channel] + shift[channel]; null is 1 and 0
template <typename T>
BAT_CLONES void affine_lanes(const T* from, const T* scale, const T* shift, bool add, T* to, const Map& map) {
  for (int64_t p = 0, i = 0; p < map.pixels(); ++p) {
    for (int64_t c = 0; c < map.channels; ++c) {
      const T a = scale == nullptr ? T(1) : scale[c], b = shift == nullptr ? T(0) : shift[c];
      for (int64_t lane = 0; lane < kImageLanes; ++lane, ++i) to[i] = (add ? to[i] : T(0)) + (from[i] * a + b);
    }
  }
}

template <typename T>
BAT_CLONES void mean_lanes(const T* from, const Map& map, T* to) {
  const int64_t n = map.channels * kImageLanes;
  const T share = T(1) / static_cast<T>(map.pixels());
  for (int64_t i = 0; i < n; ++i) to[i] = T(0);
  for (int64_t p = 0; p < map.pixels(); ++p) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[p * n + i];
  }
  for (int64_t i = 0; i < n; ++i) to[i] *= share;
}
template <typename T>
BAT_CLONES void mean_backward_lanes(const T* from, const Map& map, bool add, T* to) {
  const int64_t n = map.channels * kImageLanes;
  const T share = T(1) / static_cast<T>(map.pixels());
  for (int64_t p = 0; p < map.pixels(); ++p) {
    for (int64_t i = 0; i < n; ++i) to[p * n + i] = (add ? to[p * n + i] : T(0)) + from[i] * share;
  }
}

// The largest of each window; a NaN wins, as in torch.
template <typename T>
BAT_CLONES void max_pool_lanes(const Window& w, const Map& in, const Map& out, const T* from, T* to) {
  const int64_t n = in.channels * kImageLanes;
  for (int64_t p = 0; p < out.pixels(); ++p) {
    T* best = to + p * n;
    for (int64_t i = 0; i < n; ++i) best[i] = -T(INFINITY);
    covered_by(w, in, p / out.width, p % out.width, [&](int64_t pixel, int64_t, int64_t count) BAT_INLINE {
      for (const T *v = from + pixel * n, *end = v + count * n; v < end; v += n) {
        for (int64_t i = 0; i < n; ++i) best[i] = v[i] > best[i] || v[i] != v[i] ? v[i] : best[i];
      }
    });
  }
}
// The gradient goes to the first maximum of each window. `grad` is set to 0 once it has been passed on, so that a
// second maximum gets none.
template <typename T>
BAT_CLONES void max_pool_backward_lanes(const Window& w, const Map& in, const Map& out, const T* from, const T* best,
                                        T* grad, T* to) {
  const int64_t n = in.channels * kImageLanes;
  for (int64_t p = 0; p < out.pixels(); ++p) {
    const T* y = best + p * n;
    T* g = grad + p * n;
    covered_by(w, in, p / out.width, p % out.width, [&](int64_t pixel, int64_t, int64_t count) BAT_INLINE {
      for (int64_t k = pixel; k < pixel + count; ++k) {
        const T* v = from + k * n;
        T* t = to + k * n;
        for (int64_t i = 0; i < n; ++i) {
          const bool is = v[i] == y[i] || v[i] != v[i];
          t[i] += is ? g[i] : T(0);
          g[i] = is ? T(0) : g[i];
        }
      }
    });
  }
}

// --- Layers -------------------------------------------------------------------------------------------------------

template <typename T>
void forward_lanes(const Network<T>& net, T* values) {
  for (const PlanLayer* a = net.layers; a < net.layers + net.count; ++a) {
    const T *from = values + a->source * kImageLanes, *bias = a->bias < 0 ? nullptr : net.weights + a->bias;
    const int64_t n = a->out.size() * kImageLanes;
    T* to = values + (a->activation == Activation::kSilu ? a->before : a->target) * kImageLanes;
    if (a->kind == LayerKind::kWindow) window_cpu(a->window, a->into, a->out, from, net.weights + a->weight, bias, to);
    if (a->kind == LayerKind::kAffine) {
      affine_lanes(from, a->weight < 0 ? nullptr : net.weights + a->weight, bias, false, to, a->into);
    }
    if (a->kind == LayerKind::kMaxPool) max_pool_lanes(a->window, a->into, a->out, from, to);
    if (a->kind == LayerKind::kMean) mean_lanes(from, a->into, to);
    if (a->kind == LayerKind::kSum) add_lanes(from, false, to, n);
    if (a->other >= 0) add_lanes(values + a->other * kImageLanes, true, to, n);
    activate_lanes(a->activation, to, values + a->target * kImageLanes, n);
  }
}

// `grads` holds the gradient at the logits, and receives the gradient at every map.
template <typename T>
void backward_lanes(const Network<T>& net, const T* values, T* grads) {
  for (const PlanLayer* a = net.layers + net.count - 1; a >= net.layers; --a) {
    const int64_t n = a->out.size() * kImageLanes;
    T *grad = grads + a->target * kImageLanes, *to = grads + a->source * kImageLanes;
    const bool add = a->adds_source != 0;
    slope_lanes(a->activation, values + (a->activation == Activation::kSilu ? a->before : a->target) * kImageLanes,
                grad, n);
    if (a->other >= 0) add_lanes(grad, a->adds_other != 0, grads + a->other * kImageLanes, n);
    if (a->kind == LayerKind::kWindow) {
      window_backward_cpu(a->window, a->into, a->out, grad, net.weights + a->weight, add, to);
    }
    if (a->kind == LayerKind::kAffine) {
      affine_lanes<T>(grad, a->weight < 0 ? nullptr : net.weights + a->weight, nullptr, add, to, a->into);
    }
    if (a->kind == LayerKind::kMaxPool) {
      if (!add) std::fill_n(to, a->into.size() * kImageLanes, T(0));
      max_pool_backward_lanes(a->window, a->into, a->out, values + a->source * kImageLanes,
                              values + a->target * kImageLanes, grad, to);
    }
    if (a->kind == LayerKind::kMean) mean_backward_lanes(grad, a->into, add, to);
    if (a->kind == LayerKind::kSum) add_lanes(grad, add, to, n);
  }
}

}  // namespace bat_fast
