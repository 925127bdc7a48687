// The queries of the Square attack in l2, on a small network: see squares.h.
#pragma once

#include "kernels/queries.h"

namespace bat_fast {

// What the queries in l2 try: the perturbation of one square moves into another, with a bump, and the whole of it is
// brought back to length eps. As all pixels change, the images of a lane are kept pixel by pixel beside each other.
template <typename T>
struct Bumps {
  const Images<const T>& clean;
  const Map& map;
  const Squares<T>& how;
  T *trial, *own;  // own: for each lane its clean image and the best so far, then one perturbation and one square

  static int64_t values(const Map& map) { return 3 * map.size(); }

  T* centre(int64_t lane) { return own + 2 * lane * map.size(); }
  T* best(int64_t lane) { return centre(lane) + map.size(); }

  void seat(int64_t lane, const Images<const T>& adv, int64_t image) {
    each_pixel(clean, map, image, [&](int64_t i, const T& value) { centre(lane)[i / kImageLanes] = value; });
    each_pixel(adv, map, image, [&](int64_t i, const T& value) { best(lane)[i / kImageLanes] = value; });
  }
  void leave(int64_t lane, const Images<T>& adv, int64_t image) {
    each_pixel(adv, map, image, [&](int64_t i, T& value) { value = best(lane)[i / kImageLanes]; });
  }

  void settle(int64_t lane, const Guess<T>&, bool better) {
    for (int64_t i = 0; better && i < map.size(); ++i) best(lane)[i] = trial[i * kImageLanes + lane];
  }

  bool propose(int64_t lane, Guess<T>& a) {
    const int64_t n = map.size();
    const T *x = best(lane), *middle = centre(lane);
    T* away = own + 2 * kImageLanes * n;
    while (a.query < how.queries) {
      const float* chance = how.numbers + (a.image * how.queries + a.query++) * (5 + map.channels);
      T square = T(0), moved = T(0);
#pragma omp simd reduction(+ : square)
      for (int64_t i = 0; i < n; ++i) {
        away[i] = x[i] - middle[i];
        square += away[i] * away[i];
      }
      const T unused = maximum(how.eps * how.eps - square, T(0)) / static_cast<T>(map.channels);
      for (int64_t c = 0; c < map.channels; ++c) move(chance, c, unused, away, away + n);
#pragma omp simd reduction(+ : moved)
      for (int64_t i = 0; i < n; ++i) moved += away[i] * away[i];
      const T length = std::sqrt(moved) + kTiny;
      bool changed = false;
      for (int64_t i = 0; i < n; ++i) {
        const T value = minimum(maximum(middle[i] + away[i] / length * how.eps, how.lo), how.hi);
        changed = changed || value != x[i];
        trial[i * kImageLanes + lane] = value;
      }
      if (changed) return true;
    }
    return false;
  }

 private:
  static constexpr T kTiny = T(1e-12);

  // One channel of the perturbation: what is in the second square moves into the first, with a bump that has the
  // energy of both and the `unused` one. `square` is memory for one.
  void move(const float* chance, int64_t c, T unused, T* away, T* square) const {
    const int64_t side = how.side, room_y = map.height - side, room_x = map.width - side;
    const int64_t top = place_of(chance[0], room_y), left = place_of(chance[1], room_x);
    const int64_t other_top = place_of(chance[2], room_y), other_left = place_of(chance[3], room_x);
    const T* bump = how.bumps + (chance[4] > 0.5f ? side * side : 0);
    const auto at = [&](int64_t y, int64_t x) -> T& { return away[(y * map.width + x) * map.channels + c]; };
    T here = T(0), there = T(0), size = T(0);
    for (int64_t y = 0; y < side; ++y) {
      for (int64_t x = 0; x < side; ++x) {
        const T value = square[y * side + x] = at(top + y, left + x);
        here += value * value;
      }
    }
    for (int64_t y = other_top; y < other_top + side; ++y) {
      for (int64_t x = other_left; x < other_left + side; ++x) {
        const bool both = y >= top && y < top + side && x >= left && x < left + side;
        if (!both) there += at(y, x) * at(y, x);
        at(y, x) = T(0);
      }
    }
    const T energy = std::sqrt(here) + kTiny;
    for (int64_t i = 0; i < side * side; ++i) {
      square[i] = (chance[5 + c] > 0.5f ? bump[i] : -bump[i]) + square[i] / energy;
      size += square[i] * square[i];
    }
    const T bumped = std::sqrt(size) + kTiny, budget = std::sqrt(unused + here + there);
    for (int64_t y = 0; y < side; ++y) {
      for (int64_t x = 0; x < side; ++x) at(top + y, left + x) = square[y * side + x] / bumped * budget;
    }
  }
};

}  // namespace bat_fast
