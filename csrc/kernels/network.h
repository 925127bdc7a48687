// Passes over a small network, for 32 images at a time: forward and backward once, or all steps of an attack. For
// CPUs alone: on a GPU whole batches run in a CUDA graph of all steps.
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "kernels/attack_grad.h"
#include "kernels/lanes.h"
#include "kernels/step_lanes.h"

namespace bat_fast {

// Images [rows, channels, height, width], by whatever strides.
template <typename T>
struct Images {
  T* data;
  int64_t rows, row, channel, y, x;  // the number of images; strides
};

// Calls visit(index in the lanes, whether the image exists, its value) for the images first .. first + kImageLanes.
// Lanes past the last image repeat it.
template <typename T, typename Visit>
BAT_HD void each_value(const Images<T>& images, const Map& map, int64_t first, Visit visit) {
  for (int64_t y = 0, i = 0; y < map.height; ++y) {
    for (int64_t x = 0; x < map.width; ++x) {
      for (int64_t c = 0; c < map.channels; ++c) {
        for (int64_t lane = 0; lane < kImageLanes; ++lane, ++i) {
          const int64_t n = first + lane;
          visit(i, n < images.rows,
                images.data + (n < images.rows ? n : images.rows - 1) * images.row + c * images.channel + y * images.y +
                    x * images.x);
        }
      }
    }
  }
}
template <typename T>
void load_lanes(const Images<const T>& images, const Map& map, int64_t first, T* lanes) {
  each_value(images, map, first, [&](int64_t i, bool, const T* value) { lanes[i] = *value; });
}
template <typename T>
void store_lanes(const Images<T>& images, const Map& map, int64_t first, const T* lanes) {
  each_value(images, map, first, [&](int64_t i, bool exists, T* value) {
    if (exists) *value = lanes[i];
  });
}

// Rows [kImageLanes, classes] to and from lanes.
template <typename T>
void rows_to_lanes(const T* rows, int64_t classes, int64_t count, T* lanes) {
  for (int64_t c = 0; c < classes; ++c) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      lanes[c * kImageLanes + lane] = rows[(lane < count ? lane : count - 1) * classes + c];
    }
  }
}
template <typename T>
void lanes_to_rows(const T* lanes, int64_t classes, int64_t count, T* rows) {
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t c = 0; c < classes; ++c) rows[lane * classes + c] = lanes[c * kImageLanes + lane];
  }
}

// Memory for the values of 32 images.
template <typename T>
class Workspace {
 public:
  explicit Workspace(int64_t values)
      : memory_(static_cast<T*>(::operator new(values * kImageLanes * sizeof(T), kAlign))) {}
  T* at(int64_t value) { return memory_.get() + value * kImageLanes; }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(T* memory) const { ::operator delete(memory, kAlign); }
  };
  std::unique_ptr<T, Free> memory_;
};

// The images of the chunks begin .. end, 32 each: their logits and, where `grad` is not null, the gradient at the
// pixels for that gradient at the logits.
template <typename T>
void network_gradient_cpu(const Network<T>& net, const Images<const T>& x, const T* grad, T* logits,
                          const Images<T>& grad_x, int64_t begin, int64_t end) {
  Workspace<T> space(2 * net.values);
  T *values = space.at(0), *grads = space.at(net.values);
  const int64_t classes = net.classes(), last = net.layers[net.count - 1].target;
  for (int64_t first = begin * kImageLanes; first < std::min(end * kImageLanes, x.rows); first += kImageLanes) {
    const int64_t count = std::min(kImageLanes, x.rows - first);
    load_lanes(x, net.images, first, values);
    forward_lanes(net, values);
    lanes_to_rows(values + last * kImageLanes, classes, count, logits + first * classes);
    if (grad == nullptr) continue;
    rows_to_lanes(grad + first * classes, classes, count, grads + last * kImageLanes);
    backward_lanes(net, values, grads);
    store_lanes(grad_x, net.images, first, grads);
  }
}

// The gradient of cross-entropy, in lanes; softmax_row_cpu does the same to rows.
template <typename T>
BAT_CLONES void cross_entropy_lanes(const T* z, const int64_t* target, bool targeted, int64_t classes, int64_t count,
                                    T* grad) {
  const int64_t n = classes * kImageLanes;
  T top[kImageLanes], sum[kImageLanes] = {}, scale[kImageLanes];
  for (int64_t lane = 0; lane < kImageLanes; ++lane) top[lane] = z[lane];
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) top[lane] = maximum(top[lane], z[i + lane]);
  }
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      grad[i + lane] = fast_exp(z[i + lane] - top[lane]);
      sum[lane] += grad[i + lane];
    }
  }
  for (int64_t lane = 0; lane < kImageLanes; ++lane) scale[lane] = (targeted ? T(-1) : T(1)) / sum[lane];
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) grad[i + lane] *= scale[lane];
  }
  for (int64_t lane = 0; lane < count; ++lane) grad[target[lane] * kImageLanes + lane] -= targeted ? T(-1) : T(1);
}

// The arguments of an attack beside the images. The arrays of `loss` and `target` are those of the whole batch.
template <typename T>
struct Climb {
  const int64_t* target;
  Attack<T> loss;
  StepLimits<T> limits;
  bool l2;
  int64_t steps;
};

// Moves the images of the chunks begin .. end.
template <typename T>
void network_attack_cpu(const Network<T>& net, const Images<T>& adv, const Images<const T>& clean, const Climb<T>& how,
                        int64_t begin, int64_t end) {
  const Map& map = net.images;
  const int64_t classes = net.classes(), last = net.layers[net.count - 1].target, n = map.size() * kImageLanes;
  Workspace<T> space(2 * net.values + map.size());
  T *values = space.at(0), *grads = space.at(net.values), *centre = space.at(2 * net.values);
  std::vector<T> rows(classes * kImageLanes), row_grads(classes * kImageLanes), per_sample(kImageLanes);
  for (int64_t first = begin * kImageLanes; first < std::min(end * kImageLanes, adv.rows); first += kImageLanes) {
    const int64_t count = std::min(kImageLanes, adv.rows - first);
    const auto from = [&](const T* all) { return all == nullptr ? nullptr : all + first * classes; };
    Attack<T> loss = how.loss;
    loss.label = loss.label == nullptr ? nullptr : loss.label + first;
    loss.reference = from(loss.reference);
    loss.soft = from(loss.soft);
    load_lanes(Images<const T>{adv.data, adv.rows, adv.row, adv.channel, adv.y, adv.x}, map, first, values);
    load_lanes(clean, map, first, centre);
    for (int64_t step = 0; step < how.steps; ++step) {
      forward_lanes(net, values);
      const T* logits = values + last * kImageLanes;
      T* logit_grads = grads + last * kImageLanes;
      if (loss.loss == RowLoss::kCrossEntropy && loss.soft == nullptr) {
        cross_entropy_lanes(logits, how.target + first, loss.targeted, classes, count, logit_grads);
      } else {
        lanes_to_rows(logits, classes, count, rows.data());
        attack_grad_cpu(Logits<T>{rows.data(), how.target + first, count, classes}, loss, row_grads.data(),
                        per_sample.data(), 0, count);
        rows_to_lanes(row_grads.data(), classes, count, logit_grads);
      }
      backward_lanes(net, values, grads);
      how.l2 ? l2_lanes(values, grads, centre, n, how.limits) : linf_lanes(values, grads, centre, n, how.limits);
    }
    store_lanes(adv, map, first, values);
  }
}

}  // namespace bat_fast
