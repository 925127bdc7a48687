// The Square attack on a small network, a block of queries at once. For CPUs alone: on a GPU whole batches run in a
// CUDA graph of all queries.
#pragma once

#include "kernels/bumps.h"

namespace bat_fast {

// What the queries in linf try: a square at the ends of the ball. The best so far is in lanes, as the trial is.
template <typename T>
struct Ends {
  const Images<const T>& clean;
  const Map& map;
  const Squares<T>& how;
  T *trial, *best;

  static int64_t values(const Map& map) { return map.size(); }

  void seat(int64_t lane, const Images<const T>& adv, int64_t image) { load_lane(adv, map, image, best + lane); }
  void leave(int64_t lane, const Images<T>& adv, int64_t image) { store_lane(adv, map, image, best + lane); }

  // The query on trial is the best so far, or is taken back.
  void settle(int64_t lane, const Guess<T>& a, bool better) {
    T *from = (better ? trial : best) + lane, *to = (better ? best : trial) + lane;
    each_in_square(a, [&](int64_t i, T, int64_t) { to[i] = from[i]; });
  }

  // Puts the next square that changes the image on trial; false where no query is left that does.
  bool propose(int64_t lane, Guess<T>& a) {
    while (a.query < how.queries) {
      const float* chance = how.numbers + (a.image * how.queries + a.query++) * (2 + map.channels);
      a.top = place_of(chance[0], map.height - how.side);
      a.left = place_of(chance[1], map.width - how.side);
      T* column = trial + lane;
      bool changed = false;
      each_in_square(a, [&](int64_t i, T pixel, int64_t c) {
        const T end = chance[2 + c] > 0.5f ? pixel + how.eps : pixel - how.eps;
        const T value = minimum(maximum(end, how.lo), how.hi);
        changed = changed || value != column[i];
        column[i] = value;
      });
      if (changed) return true;
    }
    return false;
  }

  // Calls visit(index in the lanes, pixel of the clean image, channel) for the square on trial.
  template <typename Visit>
  void each_in_square(const Guess<T>& a, Visit visit) {
    for (int64_t y = a.top; y < a.top + how.side; ++y) {
      for (int64_t x = a.left; x < a.left + how.side; ++x) {
        const T* pixel = clean.data + a.image * clean.row + y * clean.y + x * clean.x;
        for (int64_t c = 0; c < map.channels; ++c) {
          visit(((y * map.width + x) * map.channels + c) * kImageLanes, pixel[c * clean.channel], c);
        }
      }
    }
  }
};

// Moves the images of the chunks begin .. end, the best so far, query after query.
template <typename T, template <typename> typename Way>
void queries_cpu(const Network<T>& net, const Images<T>& adv, const Images<const T>& clean, const Squares<T>& how,
                 int64_t begin, int64_t end) {
  const Map& map = net.images;
  const int64_t classes = net.classes(), last = net.layers[net.count - 1].target;
  const int64_t values = net.values + Way<T>::values(map);
  Workspace<T> space(values);
  std::fill_n(space.at(0), values * kImageLanes, T(0));
  T* trial = space.at(0);
  Way<T> way = {clean, map, how, trial, space.at(net.values)};
  Guess<T> lanes[kImageLanes] = {};
  in_lanes(
      begin * kImageLanes, std::min(end * kImageLanes, adv.rows),
      [&](int64_t lane, int64_t image) {
        load_lane(read_only(adv), map, image, trial + lane);
        way.seat(lane, read_only(adv), image);
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
          if (!a.first) way.settle(lane, a, better);
          a.first = false;
          if (!(a.margin > T(0)) || !way.propose(lane, a)) {
            way.leave(lane, adv, images[lane]);
            images[lane] = -1;
          }
        }
      });
}

template <typename T>
void network_squares_cpu(const Network<T>& net, const Images<T>& adv, const Images<const T>& clean,
                         const Squares<T>& how, int64_t begin, int64_t end) {
  how.bumps == nullptr ? queries_cpu<T, Ends>(net, adv, clean, how, begin, end)
                       : queries_cpu<T, Bumps>(net, adv, clean, how, begin, end);
}

}  // namespace bat_fast
