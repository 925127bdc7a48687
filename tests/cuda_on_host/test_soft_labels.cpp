// soft_labels.cu against the CPU twin of soft_labels.h in float64.
#include <span>

#include "kernels/soft_labels.h"
#include "logits.h"

using namespace bat_fast;

struct Size {
  int64_t samples, rows, classes;
};

// Ids of a few samples, so that most rows have duplicates, and the last sample is met by nobody.
Array<int64_t> few_ids(Size size) {
  Array<int64_t> index(size.rows);
  for (int64_t& id : std::span(index.data(), size.rows)) {
    id = static_cast<int64_t>(generator()() % std::max<int64_t>(size.samples - 1, 1));
  }
  return index;
}

// Each sample at most once, in no order.
Array<int64_t> unique_ids(Size size) {
  Array<int64_t> index(size.rows);
  for (int64_t n = 0; n < size.rows; ++n) index[n] = size.samples - 1 - n * 7 % size.samples;
  return index;
}

template <typename T>
void check(Size size, const Array<int64_t>& index, float momentum, bool with_nan = false) {
  const int64_t count = size.rows * size.classes;
  const int64_t skip = skip_of(size.classes);
  auto logits = Array<T>(random_array<T>(count, [](int64_t) { return 5 * normal(); }), skip);
  if (with_nan) logits[count - 1] = store<T>(NAN);
  const auto start = random_array<float>(size.samples * size.classes, [](int64_t) { return uniform(); });
  const auto wide_logits = widened<double>(logits);
  Array<float> memory(start, skip), targets(count, skip);
  auto want_memory = widened<double>(start);
  Array<double> want(count);
  const Ensemble<double, double> wide = {want_memory.data(), index.data(), wide_logits.data(), want.data(),
                                         size.samples,       size.rows,    size.classes,       momentum};
  ensemble_cuda<T>(
      {memory.data(), index.data(), logits.data(), targets.data(), size.samples, size.rows, size.classes, momentum},
      nullptr);
  ensemble_cpu(wide, 0, 3);
  ensemble_cpu(wide, 3, kShards);
  expect_all_close("memory", memory, want_memory, kSummed);
  expect_all_close("target", targets, want, kSummed);
  for (int64_t i = 0; i < memory.size(); ++i) {
    if (want_memory[i] == start[i]) expect_same_bits("untouched memory", i, memory[i], start[i]);
  }
}

template <typename T>
void check_rows(Size size) {
  check<T>(size, unique_ids(size), 0.9f);
  for (const float momentum : {0.0f, 0.9f, 1.0f}) check<T>(size, few_ids(size), momentum);
  if (size.rows < 3) return;
  check<T>(size, few_ids(size), 0.5f, true);
  Array<int64_t> index = few_ids(size);
  index[0] = size.samples;
  index[1] = -(1ll << 40);
  index[size.rows - 1] = -1;  // outside: NaN, and no memory is touched
  check<T>(size, index, 0.5f);
}

template <typename T>
void check_type() {
  for (const int64_t classes : {1, 2, 33, 64, 200}) check_rows<T>({12, 11, classes});
  check_rows<T>({5, 5, 2048});
  check_rows<T>({4, 4, 2500});
  check_rows<T>({3, 0, 10});
  check_rows<T>({1, 1, 10});
}

int main() {
  check_type<float>();
  check_type<half_bits>();
  check_type<bfloat_bits>();
  const Size many = {150, 300, 2};  // duplicates so far apart that a team sees them in different rounds
  Array<int64_t> twice(many.rows);
  for (int64_t n = 0; n < many.rows; ++n) twice[n] = n % many.samples;
  check<float>(many, twice, 0.9f);
  const Size long_rows = {2, 6, 2100};
  Array<int64_t> same(long_rows.rows);
  for (int64_t n = 0; n < long_rows.rows; ++n) same[n] = 1;
  check<float>(long_rows, same, 0.9f);
  return finish();
}
