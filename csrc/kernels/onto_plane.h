// Projections onto planes, and what else a walk along a boundary computes, for 32 images at a time.
#pragma once

#include "kernels/moves.h"

namespace bat_fast {

// A number for each lane.
template <typename T>
struct PerLane {
  alignas(64) T at[kImageLanes];
};

// The sum of `from` times `slope` for each lane.
template <typename T>
BAT_CLONES void products_lanes(const T* slope, const T* from, int64_t n, PerLane<T>& sums) {
  sums = {};
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) sums.at[lane] += slope[i + lane] * from[i + lane];
  }
}

// The norm of a - b for each lane; of `a` where b is null. `dual` is the norm of the other kind: l1 for linf.
template <typename T>
BAT_CLONES void length_lanes(const T* a, const T* b, int64_t n, bool l2, bool dual, PerLane<T>& norm) {
  norm = {};
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const T v = b == nullptr ? a[i + lane] : a[i + lane] - b[i + lane], size = v < T(0) ? -v : v;
      T& sum = norm.at[lane];
      sum = l2 ? sum + v * v : dual ? sum + size : maximum(sum, size);
    }
  }
  for (int64_t lane = 0; l2 && lane < kImageLanes; ++lane) norm.at[lane] = std::sqrt(norm.at[lane]);
}

template <typename T>
BAT_CLONES void finite_lanes(T* grad, int64_t n) {
  for (int64_t i = 0; i < n; ++i) grad[i] = finite(grad[i]);
}

// to = from in the lanes that are chosen, which are not 0.
template <typename T>
BAT_CLONES void choose_lanes(const PerLane<T>& chosen, const T* from, int64_t n, T* to) {
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      to[i + lane] = chosen.at[lane] != T(0) ? from[i + lane] : to[i + lane];
    }
  }
}

// The smallest step onto the plane <slope, x> = offset that stays in [lo, hi]: each pixel moves by min(t, room) in
// linf, by min(t |slope|, room) in l2. What that adds up to is concave and piecewise linear in t, so Newton steps from
// 0 never overshoot: no pixels are sorted.
template <typename T>
BAT_CLONES void onto_plane_lanes(const T* x, const T* slope, const PerLane<T>& offset, int64_t n, bool l2, T lo, T hi,
                                 T* step) {
  constexpr int kNewtonSteps = 20;
  PerLane<T> need, side, t = {};
  for (int64_t lane = 0; lane < kImageLanes; ++lane) need.at[lane] = T(0);
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) need.at[lane] += slope[i + lane] * x[i + lane];
  }
  for (int64_t lane = 0; lane < kImageLanes; ++lane) {
    const T excess = need.at[lane] - offset.at[lane];
    side.at[lane] = excess >= T(0) ? T(1) : T(-1);
    need.at[lane] = excess * side.at[lane];
  }
  for (int64_t i = 0; i < n; i += kImageLanes) {  // `step` holds the room of each pixel until the end
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const T w = slope[i + lane] * side.at[lane], v = x[i + lane];
      step[i + lane] = w > T(0) ? v - lo : w == T(0) ? T(0) : hi - v;
    }
  }
  for (int round = 0; round < kNewtonSteps; ++round) {
    PerLane<T> rising = {}, moved = {};
    for (int64_t i = 0; i < n; i += kImageLanes) {
      for (int64_t lane = 0; lane < kImageLanes; ++lane) {
        const T w = slope[i + lane], pull = w < T(0) ? -w : w, rate = l2 ? pull : T(1), room = step[i + lane];
        const T move = t.at[lane] * rate;
        rising.at[lane] += move < room ? pull * rate : T(0);
        moved.at[lane] += pull * minimum(move, room);
      }
    }
    int further = 0;
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const T missing = need.at[lane] - moved.at[lane];
      const T next = t.at[lane] + (rising.at[lane] > T(0) && missing > T(0) ? missing / rising.at[lane] : T(0));
      further += next > t.at[lane];
      t.at[lane] = next;
    }
    if (further == 0) break;
  }
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const T w = slope[i + lane] * side.at[lane], pull = w < T(0) ? -w : w, rate = l2 ? pull : T(1);
      const T size = minimum(t.at[lane] * rate, step[i + lane]);
      step[i + lane] = w > T(0) ? -size : size;
    }
  }
}

// x moves past the plane by a share of the step `here`, and is drawn to where the step `there` of the clean image ends.
template <typename T>
BAT_CLONES void walk_lanes(T* x, const T* here, const T* there, const T* clean, int64_t n, const PerLane<T>& share,
                           T lo, T hi) {
  constexpr T kOvershoot = T(1.05);
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      const T own = x[k] + kOvershoot * here[k], other = clean[k] + there[k] * kOvershoot;
      x[k] = minimum(maximum(own * (T(1) - share.at[lane]) + other * share.at[lane], lo), hi);
    }
  }
}

// x = clean + 0.9 (x - clean) in the lanes that are chosen.
template <typename T>
BAT_CLONES void back_lanes(T* x, const T* clean, int64_t n, const PerLane<T>& chosen) {
  constexpr T kBack = T(0.9);
  for (int64_t i = 0; i < n; i += kImageLanes) {
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      const int64_t k = i + lane;
      x[k] = chosen.at[lane] != T(0) ? clean[k] + (x[k] - clean[k]) * kBack : x[k];
    }
  }
}

}  // namespace bat_fast
