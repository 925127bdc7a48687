// What searches for misclassified images share, 32 side by side: an image that is done leaves its lane to the next
// one that waits, so no image depends on another, and all lanes are full until the last images.
#pragma once

#include "kernels/network.h"

namespace bat_fast {

// Calls seat(lane, n) for each image n of begin .. end when it takes a lane, and turn(images) until all are done.
// `images` has the image of each lane, -1 in a free one; turn sets it to -1 when the image is done.
template <typename Seat, typename Turn>
void in_lanes(int64_t begin, int64_t end, Seat seat, Turn turn) {
  int64_t images[kImageLanes];
  std::fill_n(images, kImageLanes, int64_t{-1});
  for (int64_t next = begin;;) {
    bool busy = false;
    for (int64_t lane = 0; lane < kImageLanes; ++lane) {
      if (images[lane] < 0 && next < end) seat(lane, images[lane] = next++);
      busy = busy || images[lane] >= 0;
    }
    if (!busy) return;
    turn(images);
  }
}

// Image n to and from one lane.
template <typename T, typename Visit>
void each_pixel(const Images<T>& images, const Map& map, int64_t n, Visit visit) {
  T* image = images.data + n * images.row;
  for (int64_t y = 0, i = 0; y < map.height; ++y) {
    for (int64_t x = 0; x < map.width; ++x) {
      for (int64_t c = 0; c < map.channels; ++c, ++i) {
        visit(i * kImageLanes, image[c * images.channel + y * images.y + x * images.x]);
      }
    }
  }
}
template <typename T>
void load_lane(const Images<const T>& images, const Map& map, int64_t n, T* column) {
  each_pixel(images, map, n, [&](int64_t i, const T& value) { column[i] = value; });
}
template <typename T>
void store_lane(const Images<T>& images, const Map& map, int64_t n, const T* column) {
  each_pixel(images, map, n, [&](int64_t i, T& value) { value = column[i]; });
}
template <typename T>
Images<const T> read_only(const Images<T>& a) {
  return {a.data, a.rows, a.row, a.channel, a.y, a.x};
}

// How far the logit of y is above the others in a column of logits; -inf where one is no number.
template <typename T>
T margin_of(const T* z, int64_t classes, int64_t y) {
  T top = -T(INFINITY);
  bool numbers = true;
  for (int64_t c = 0; c < classes; ++c) {
    const T value = z[c * kImageLanes];
    numbers = numbers && value == value;
    if (c != y) top = maximum(top, value);
  }
  const T margin = z[y * kImageLanes] - top;
  return numbers && margin == margin ? margin : -T(INFINITY);
}

// Whether another class than y comes first in a column of logits, or one is no number. Of equals the first counts.
template <typename T>
bool missed(const T* z, int64_t classes, int64_t y) {
  int64_t best = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const T value = z[c * kImageLanes];
    if (value != value) return true;
    if (value > z[best * kImageLanes]) best = c;
  }
  return best != y;
}

}  // namespace bat_fast
