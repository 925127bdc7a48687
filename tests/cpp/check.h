// What the C++ tests share: arrays of exact size, random numbers, comparisons that count and print failures.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "kernels/portable.h"

// On the heap and no byte longer than asked, so that AddressSanitizer sees the first element outside. Aligned as
// torch's memory is; `skip` elements in front make it as misaligned as a slice of a larger array.
template <typename T>
class Array {
 public:
  explicit Array(int64_t count, int64_t skip = 0)
      : count_(count),
        memory_(allocate((skip + count) * sizeof(T))),
        data_(reinterpret_cast<T*>(memory_.get()) + skip) {
    std::memset(static_cast<void*>(data_), 0xff, count * sizeof(T));  // NaN: what is not written is seen
  }
  Array(const Array& other, int64_t skip) : Array(other.count_, skip) {
    std::memcpy(static_cast<void*>(data_), other.data_, count_ * sizeof(T));
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return count_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  static char* allocate(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes) != 0) std::abort();
    return static_cast<char*>(memory);
  }
  int64_t count_;
  std::unique_ptr<char, Free> memory_;
  T* data_;
};

inline std::mt19937_64& generator() {
  static std::mt19937_64 engine = [] {
    const char* given = std::getenv("BAT_FAST_TEST_SEED");
    const unsigned seed = given ? std::strtoul(given, nullptr, 10) : std::random_device{}();
    std::printf("random inputs: BAT_FAST_TEST_SEED=%u\n", seed);
    return std::mt19937_64(seed);
  }();
  return engine;
}
inline double uniform() { return std::uniform_real_distribution<>(0, 1)(generator()); }
inline double normal() { return std::normal_distribution<>()(generator()); }

// `count` values of value(i), rounded to T.
template <typename T, typename Value>
Array<T> random_array(int64_t count, Value value) {
  Array<T> array(count);
  for (int64_t i = 0; i < count; ++i) array[i] = bat_fast::store<T>(static_cast<bat_fast::compute_t<T>>(value(i)));
  return array;
}
// The same values in a wider type.
template <typename To, typename T>
Array<To> widened(const Array<T>& from) {
  return random_array<To>(from.size(), [&](int64_t i) { return bat_fast::load(from[i]); });
}

inline int failures = 0;

inline void expect(bool ok, const char* what, int64_t at = 0) {
  if (!ok && ++failures <= 20) std::printf("FAILED: %s [%lld]\n", what, static_cast<long long>(at));
}
// |got - want| <= tolerance * max(1, |want|); NaN and infinities must be the same.
inline void expect_close(const char* what, int64_t at, double got, double want, double tolerance) {
  const bool same = got == want || (std::isnan(got) && std::isnan(want));
  if (same || std::abs(got - want) <= tolerance * std::fmax(1, std::abs(want))) return;
  if (++failures <= 20) {
    std::printf("FAILED: %s [%lld] is %.9g, not %.9g\n", what, static_cast<long long>(at), got, want);
  }
}
template <typename T>
void expect_same_bits(const char* what, int64_t at, T got, T want) {
  if (std::memcmp(&got, &want, sizeof(T)) != 0) {
    expect_close(what, at, bat_fast::load(got), bat_fast::load(want), -1);
  }
}

inline int finish() {
  std::printf(failures ? "%d failures\n" : "all passed\n", failures);
  return failures != 0;
}
