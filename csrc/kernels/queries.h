// What the queries of the Square attack are given on a small network, and what is known of an image between them.
#pragma once

#include "kernels/search.h"

namespace bat_fast {

// The arguments beside the images. The arrays are those of the whole batch.
template <typename T>
struct Squares {
  const int64_t* label;  // [N] true classes
  const float* numbers;  // [N, queries, 2 + channels] in [0, 1): place, and for each channel which end of the ball;
                         // in l2 [N, queries, 5 + channels]: two places, which bump, for each channel its sign
  const T* bumps;        // [2, side, side] of norm 1, in l2; null: linf
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

}  // namespace bat_fast
