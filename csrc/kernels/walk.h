// The fast adaptive boundary attack on a small network, all steps at once. For CPUs alone: on a GPU whole batches run
// in a CUDA graph of all steps.
#pragma once

#include "kernels/onto_plane.h"
#include "kernels/search.h"

namespace bat_fast {

// The arguments beside the images. The arrays are those of the whole batch.
template <typename T>
struct Walk {
  const int64_t* label;   // [N] true classes
  const int64_t* target;  // [N] classes to walk to; null: to whichever is nearest
  bool l2;
  T eps, lo, hi;
  int64_t steps;
};

// Walks the images of the chunks begin .. end from their start along the boundary, to the first misclassified point of
// the ball, or puts the clean image there.
template <typename T>
void network_walk_cpu(const Network<T>& net, const Images<T>& adv, const Images<const T>& clean, const Walk<T>& how,
                      int64_t begin, int64_t end) {
  constexpr T kShare = T(0.1), kTiny = T(1e-8);
  const Map& map = net.images;
  const int64_t classes = net.classes(), last = net.layers[net.count - 1].target * kImageLanes;
  const int64_t n = map.size() * kImageLanes, all = 2 * net.values + 4 * map.size();
  Workspace<T> space(all);
  T *x = space.at(0), *grad = space.at(net.values), *centre = space.at(2 * net.values);
  std::fill_n(x, all * kImageLanes, T(0));
  T *slope = centre + n, *here = slope + n, *there = here + n;
  int64_t label[kImageLanes] = {}, target[kImageLanes] = {}, steps[kImageLanes] = {};
  bool stale = true;  // the logits at hand are not those of x
  PerLane<T> gap = {}, nearest, chosen, size, far, back;
  // The boundary near x, made straight: by how much a logit is above that of the label, and its gradient.
  const auto plane = [&](int64_t number) {
    std::fill_n(grad + last, classes * kImageLanes, T(0));
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t other = how.target == nullptr ? number : target[lane];
      grad[last + other * kImageLanes + lane] += T(1);
      grad[last + label[lane] * kImageLanes + lane] -= T(1);
    }
    backward_lanes(net, x, grad);
    finite_lanes(grad, n);
    length_lanes<T>(grad, nullptr, n, how.l2, true, size);
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t other = how.target == nullptr ? number : target[lane];
      const T value = x[last + other * kImageLanes + lane] - x[last + label[lane] * kImageLanes + lane];
      const T reach = other == label[lane] ? T(1e10) : std::abs(value) / (T(1e-12) + size.at[lane]);
      const bool closer = number == 0 || reach < nearest.at[lane];
      chosen.at[lane] = T(closer);
      nearest.at[lane] = number == 0 && !(reach == reach) ? T(INFINITY) : closer ? reach : nearest.at[lane];
      gap.at[lane] = closer ? value : gap.at[lane];
    }
    choose_lanes(chosen, grad, n, slope);
  };
  in_lanes(
      begin * kImageLanes, std::min(end * kImageLanes, adv.rows),
      [&](int64_t lane, int64_t image) {
        load_lane(read_only(adv), map, image, x + lane);
        load_lane(clean, map, image, centre + lane);
        label[lane] = how.label[image];
        target[lane] = how.target == nullptr ? label[lane] : how.target[image];
        steps[lane] = 0;
        stale = true;
      },
      [&](int64_t* images) {
        if (stale) forward_lanes(net, x);
        for (int64_t c = 0; c < (how.target == nullptr ? classes : 1); ++c) plane(c);
        products_lanes(slope, x, n, size);
        for (int64_t lane = 0; lane < kImageLanes; ++lane) gap.at[lane] = size.at[lane] - gap.at[lane];
        onto_plane_lanes(x, slope, gap, n, how.l2, how.lo, how.hi, here);
        onto_plane_lanes(centre, slope, gap, n, how.l2, how.lo, how.hi, there);
        length_lanes<T>(here, nullptr, n, how.l2, false, size);
        length_lanes<T>(there, nullptr, n, how.l2, false, far);
        for (int64_t lane = 0; lane < kImageLanes; ++lane) {
          const T own = maximum(size.at[lane], kTiny);
          size.at[lane] = minimum(maximum(own / (own + maximum(far.at[lane], kTiny)), T(0)), kShare);
        }
        walk_lanes(x, here, there, centre, n, size, how.lo, how.hi);
        forward_lanes(net, x);
        length_lanes(x, centre, n, how.l2, false, size);
        stale = false;
        for (int64_t lane = 0; lane < kImageLanes; ++lane) {
          const bool wrong = missed(x + last + lane, classes, label[lane]);
          back.at[lane] = T(wrong);
          if (images[lane] < 0) continue;
          stale = stale || wrong;
          const bool found = wrong && size.at[lane] <= how.eps;
          if (!found && ++steps[lane] < how.steps) continue;
          store_lane(adv, map, images[lane], (found ? x : centre) + lane);
          images[lane] = -1;
        }
        if (stale) back_lanes(x, centre, n, back);
      });
}

}  // namespace bat_fast
