// AutoPGD on a small network, all steps at once. For CPUs alone: on a GPU whole batches run in a CUDA graph of all
// steps.
#pragma once

#include "kernels/moves.h"
#include "kernels/search.h"

namespace bat_fast {

// The arguments beside the images. The arrays are those of the whole batch.
template <typename T>
struct Ascent {
  const int64_t* label;   // [N] true classes
  const int64_t* target;  // [N] classes to move towards; null: away from the label
  RowLoss loss;
  bool l2;
  T eps, lo, hi;
  int64_t steps;
  const int64_t* checks;  // the numbers of steps after which they may be halved, in order
  int64_t check_count;
};

// What a lane knows of its image, beside the pixels.
template <typename T>
struct Climber {
  int64_t number, since, rises, check;  // of the step; steps and rises since the last check; which check is next
  bool halved;
  T step, last, best, checked;  // losses: at the step before, the largest, the largest at the last check
};

// Takes note of the loss at a point; says whether it is the best so far, and whether to go back to the best.
template <typename T>
void climbed(Climber<T>& a, T loss, const Ascent<T>& how, T& keep, T& back) {
  constexpr double kRising = 0.75;  // the share of steps that must raise the loss between two checks
  keep = back = T(0);
  if (a.number == 0) {
    a.best = a.checked = loss;
    keep = T(1);
    return;
  }
  if (loss > a.best) {
    a.best = loss;
    keep = T(1);
  }
  a.rises += loss > a.last;
  a.last = loss;
  ++a.since;
  if (a.check < how.check_count && a.number == how.checks[a.check]) {
    a.halved = a.rises <= kRising * a.since || (!a.halved && a.checked >= a.best);
    if (a.halved) {
      a.step /= T(2);
      back = T(1);
    }
    a.checked = a.best;
    a.rises = a.since = 0;
    ++a.check;
  }
}

// Moves the images of the chunks begin .. end from their start to the first misclassified point, or to the clean image.
template <typename T>
void network_ascent_cpu(const Network<T>& net, const Images<T>& adv, const Images<const T>& clean, const Ascent<T>& how,
                        int64_t begin, int64_t end) {
  constexpr double kInertia = 0.75;  // of a step along the gradient; the rest is the step before
  const Map& map = net.images;
  const int64_t classes = net.classes(), last = net.layers[net.count - 1].target, n = map.size() * kImageLanes;
  Workspace<T> space(2 * net.values + 5 * map.size());
  T *x = space.at(0), *grad = space.at(net.values), *centre = space.at(2 * net.values);
  std::fill_n(x, (2 * net.values + 5 * map.size()) * kImageLanes, T(0));
  T *best = centre + n, *best_grad = best + n, *old = best_grad + n, *drift = old + n;
  std::vector<T> rows(classes * kImageLanes), row_grads(classes * kImageLanes), losses(kImageLanes);
  int64_t label[kImageLanes] = {}, target[kImageLanes] = {};
  Climber<T> lanes[kImageLanes] = {};
  Turn<T> turn = {};
  const Attack<T> loss = {how.loss, how.target != nullptr, label, nullptr, nullptr, T(0)};
  in_lanes(
      begin * kImageLanes, std::min(end * kImageLanes, adv.rows),
      [&](int64_t lane, int64_t image) {
        load_lane(read_only(adv), map, image, x + lane);
        load_lane(read_only(adv), map, image, old + lane);
        load_lane(clean, map, image, centre + lane);
        label[lane] = how.label[image];
        target[lane] = how.target == nullptr ? label[lane] : how.target[image];
        lanes[lane] = {0, 0, 0, 0, true, T(2) * how.eps, T(0), T(0), T(0)};
      },
      [&](int64_t* images) {
        forward_lanes(net, x);
        const T* logits = x + last * kImageLanes;
        bool any = false;
        for (int64_t lane = 0; lane < kImageLanes; ++lane) {
          if (images[lane] < 0) continue;
          const bool broken = missed(logits + lane, classes, label[lane]);
          if (broken || lanes[lane].number == how.steps) {
            store_lane(adv, map, images[lane], (broken ? x : centre) + lane);
            images[lane] = -1;
          }
          any = any || images[lane] >= 0;
        }
        if (!any) return;
        lanes_to_rows(logits, classes, kImageLanes, rows.data());
        attack_grad_cpu(Logits<T>{rows.data(), target, kImageLanes, classes}, loss, row_grads.data(), losses.data(), 0,
                        kImageLanes);
        rows_to_lanes(row_grads.data(), classes, kImageLanes, grad + last * kImageLanes);
        backward_lanes(net, x, grad);
        for (int64_t lane = 0; lane < kImageLanes; ++lane) {
          climbed(lanes[lane], losses[lane], how, turn.keep[lane], turn.back[lane]);
          turn.step[lane] = lanes[lane].step;
          turn.share[lane] = ++lanes[lane].number == 1 ? T(1) : T(kInertia);
        }
        best_lanes(x, grad, best, best_grad, old, drift, n, turn);
        how.l2 ? l2_move_lanes(x, grad, drift, centre, n, how.eps, how.lo, how.hi, turn)
               : linf_move_lanes(x, grad, drift, centre, n, how.eps, how.lo, how.hi, turn);
      });
}

}  // namespace bat_fast
