// What the drivers of the row kernels share: batches of logits and labels, and what a wrong label must lead to.
#pragma once

#include "check.h"
#include "kernels/softmax.h"

// The rounding of what is stored as T.
template <typename T>
constexpr double kStored = sizeof(T) == 4                           ? 5e-6
                           : std::is_same_v<T, bat_fast::half_bits> ? 1e-3
                                                                    : 8e-3;
constexpr double kSummed = 1e-5;  // of float32 values of a row

// Of a row of so many columns: aligned rows of whole vectors are held in registers, but for some that are misaligned.
inline int64_t skip_of(int64_t classes) { return classes % 8 == 0 && classes != 64 ? 0 : 1; }

// A batch in T, and the same numbers in float64 for the CPU twin.
template <typename T>
struct Batch {
  Array<T> z;
  Array<double> wide;
  Array<int64_t> target;
  int64_t rows, classes;

  Batch(int64_t rows, int64_t classes, double scale)
      : z(random_array<T>(rows * classes, [=](int64_t) { return scale * normal(); }), skip_of(classes)),
        wide(widened<double>(z)),
        target(rows),
        rows(rows),
        classes(classes) {
    for (int64_t n = 0; n < rows; ++n) target[n] = static_cast<int64_t>(generator()() % classes);
  }
  // The first row misses a class, and the last one has no number for another.
  void spoil_numbers() {
    wide[0] = -INFINITY;
    wide[wide.size() - 1] = NAN;
    for (const int64_t i : {int64_t{0}, z.size() - 1}) z[i] = bat_fast::store<T>(static_cast<float>(wide[i]));
  }
  // Labels outside [0, classes) give NaN in their rows only, and one of them is reported.
  void spoil_labels() {
    target[0] = -(1ll << 40);
    target[rows - 1] = classes;
  }
  bool valid(int64_t n) const { return bat_fast::valid_label(target[n], classes); }
  bat_fast::Logits<T> in() const { return {z.data(), target.data(), rows, classes}; }
  bat_fast::Logits<double> wide_in() const { return {wide.data(), target.data(), rows, classes}; }

  void expect_report(const bat_fast::LabelError& error) const {
    expect(error.seen == !(valid(0) && valid(rows - 1)), "a wrong label is reported");
    if (!error.seen) return;
    expect(error.row == 0 || error.row == rows - 1, "the row of a wrong label", error.row);
    expect(error.label == target[error.row], "the label of that row", error.label);
  }
};

template <typename T, typename W>
void expect_all_close(const char* what, const Array<T>& got, const Array<W>& want, double tolerance) {
  for (int64_t i = 0; i < got.size(); ++i) {
    expect_close(what, i, bat_fast::load(got[i]), bat_fast::load(want[i]), tolerance);
  }
}

// Calls check(type, rows, classes) where a warp takes a row, in a last block that is not full, and where a block does.
// Up to 1024 columns are held in registers.
template <typename Check>
void on_rows(Check check) {
  for (const int64_t classes : {1, 2, 5, 33, 64, 200, 1024, 2048, 2500}) {
    const int64_t rows = classes < 1024 ? 11 : 3;
    check(float{}, rows, classes);
    check(bat_fast::half_bits{}, rows, classes);
    check(bat_fast::bfloat_bits{}, rows, classes);
  }
}
