// The Square attack on a small network in linf, a block of queries at once. For CPUs alone: on a GPU whole batches run
// in a CUDA graph of all queries.
#pragma once

#include "kernels/search.h"

namespace bat_fast {

// The arguments beside the images. The arrays are those of the whole batch.
template <typename T>
struct Squares {
  const int64_t* label;  // [N] true classes
  const float* numbers;  // [N, queries, 2 + channels] in [0, 1): place, and for each channel which end of the ball
  int64_t queries, side;
  T eps, lo, hi;
};

// What a lane knows of its image, beside the pixels.
template <typename T>
struct Guess {
  int64_t image, query;  // that comes next
  bool first;            // the logits at hand are those of the image itself, not of a query
  int64_t top, left;     // of the square on trial
  T margin;              // of the best so far
};

// In [0, room] for whatever number: in [0, 1) as it should be, or none at all.
inline int64_t place_of(float chance, int64_t room) {
  const float most = static_cast<float>(room), place = chance * most;
  return place > 0 ? static_cast<int64_t>(std::min(place, most)) : 0;
}

// Calls visit(index in the lanes, pixel of the clean image, channel) for the square on trial.
template <typename T, typename Visit>
void each_in_square(const Images<const T>& clean, const Map& map, const Guess<T>& a, int64_t side, Visit visit) {
  for (int64_t y = a.top; y < a.top + side; ++y) {
    for (int64_t x = a.left; x < a.left + side; ++x) {
      const T* pixel = clean.data + a.image * clean.row + y * clean.y + x * clean.x;
      for (int64_t c = 0; c < map.channels; ++c) {
        visit(((y * map.width + x) * map.channels + c) * kImageLanes, pixel[c * clean.channel], c);
      }
    }
  }
}

// Puts the next square that changes the image into `trial`, a column; false where no query is left that does.
template <typename T>
bool propose(const Images<const T>& clean, const Map& map, const Squares<T>& how, Guess<T>& a, T* trial) {
  while (a.query < how.queries) {
    const float* chance = how.numbers + (a.image * how.queries + a.query++) * (2 + map.channels);
    a.top = place_of(chance[0], map.height - how.side);
    a.left = place_of(chance[1], map.width - how.side);
    bool changed = false;
    each_in_square(clean, map, a, how.side, [&](int64_t i, T pixel, int64_t c) {
      const T end = chance[2 + c] > 0.5f ? pixel + how.eps : pixel - how.eps;
      const T value = minimum(maximum(end, how.lo), how.hi);
      changed = changed || value != trial[i];
      trial[i] = value;
    });
    if (changed) return true;
  }
  return false;
}

// Moves the images of the chunks begin .. end, the best so far, query after query.
template <typename T>
void network_squares_cpu(const Network<T>& net, const Images<T>& adv, const Images<const T>& clean,
                         const Squares<T>& how, int64_t begin, int64_t end) {
  const Map& map = net.images;
  const int64_t classes = net.classes(), last = net.layers[net.count - 1].target;
  Workspace<T> space(net.values + map.size());
  T *trial = space.at(0), *best = space.at(net.values);
  std::fill_n(trial, (net.values + map.size()) * kImageLanes, T(0));
  Guess<T> lanes[kImageLanes] = {};
  in_lanes(
      begin * kImageLanes, std::min(end * kImageLanes, adv.rows),
      [&](int64_t lane, int64_t image) {
        load_lane(read_only(adv), map, image, trial + lane);
        load_lane(read_only(adv), map, image, best + lane);
        lanes[lane] = {image, 0, true, 0, 0, T(0)};
      },
      [&](int64_t* images) {
        forward_lanes(net, trial);
        for (int64_t lane = 0; lane < kImageLanes; ++lane) {
          if (images[lane] < 0) continue;
          Guess<T>& a = lanes[lane];
          const T margin = margin_of(trial + last * kImageLanes + lane, classes, how.label[a.image]);
          const bool better = a.first || margin < a.margin;
          if (better) a.margin = margin;
          if (!a.first) {
            T *from = (better ? trial : best) + lane, *to = (better ? best : trial) + lane;
            each_in_square(clean, map, a, how.side, [&](int64_t i, T, int64_t) { to[i] = from[i]; });
          }
          a.first = false;
          if (!(a.margin > T(0)) || !propose(clean, map, how, a, trial + lane)) {
            store_lane(adv, map, images[lane], best + lane);
            images[lane] = -1;
          }
        }
      });
}

}  // namespace bat_fast
