// What checks.h promises about shapes, types, devices and numbers.
#include "checks.h"

#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "shape.h"

namespace bat_fast {
namespace {

std::string written(const int64_t* sizes, int64_t dims) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < dims; ++i) text << (i ? ", " : "") << sizes[i];
  text << "]";
  return text.str();
}
std::string shape(const Tensor& t) { return written(sizes_of(t), t.dim()); }

}  // namespace

void check_sizes(const Named& t, std::initializer_list<int64_t> sizes) {
  const int64_t dims = t.tensor.dim();
  const bool same =
      dims == static_cast<int64_t>(sizes.size()) && std::equal(sizes.begin(), sizes.end(), sizes_of(t.tensor));
  STD_TORCH_CHECK(same, "bat_fast: ", t.name, " must be ", written(sizes.begin(), sizes.size()), ", got ",
                  shape(t.tensor));
}

void check_dims(const Named& t, int64_t dims, const char* form) {
  STD_TORCH_CHECK(t.tensor.dim() == dims, "bat_fast: ", t.name, " must be ", form, ", got ", shape(t.tensor));
}

void check_type(const Named& t, ScalarType type) {
  STD_TORCH_CHECK(t.tensor.scalar_type() == type, "bat_fast: ", t.name, " must be ", torch::headeronly::toString(type),
                  ", got ", torch::headeronly::toString(t.tensor.scalar_type()));
}

void check_floating(const Named& t) {
  const ScalarType type = t.tensor.scalar_type();
  const bool is = type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                  type == ScalarType::BFloat16;
  STD_TORCH_CHECK(is, "bat_fast: ", t.name, " must be floating point, got ", torch::headeronly::toString(type));
}

void check_beside(const Named& t, const Named& other) {
  int32_t type, other_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.tensor.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(other.tensor.get(), &other_type));
  const bool same = type == other_type && t.tensor.get_device_index() == other.tensor.get_device_index();
  STD_TORCH_CHECK(same, "bat_fast: ", t.name, " is not on the device of ", other.name, ": move one of them");
}

void check_like(const Named& t, const Named& other) {
  const int64_t dims = t.tensor.dim();
  const bool same = dims == other.tensor.dim() &&
                    std::memcmp(sizes_of(t.tensor), sizes_of(other.tensor), dims * sizeof(int64_t)) == 0;
  STD_TORCH_CHECK(same, "bat_fast: ", t.name, " must have the shape of ", other.name, ", ", shape(other.tensor),
                  ", got ", shape(t.tensor));
  check_beside(t, other);
}

void check_number(const char* name, double value, double low, double high) {
  STD_TORCH_CHECK(value >= low && value <= high, "bat_fast: ", name, " must be a finite number in [", low, ", ", high,
                  "], got ", value);
}

void check_integer(const char* name, int64_t value, int64_t low, int64_t high) {
  STD_TORCH_CHECK(value >= low && value <= high, "bat_fast: ", name, " must be in [", low, ", ", high, "], got ",
                  value);
}

void check_step(double step_size, double eps, double lo, double hi) {
  check_number("step_size", step_size, 0);
  check_number("eps", eps, 0);
  check_number("hi", hi);
  check_number("lo", lo);
  STD_TORCH_CHECK(lo <= hi, "bat_fast: lo must not be above hi, got ", lo, " and ", hi);
}

void check_word(const char* name, const std::string& value, std::initializer_list<const char*> allowed) {
  for (const char* word : allowed) {
    if (value == word) return;
  }
  std::string words;
  for (const char* word : allowed) words += std::string(words.empty() ? "" : ", ") + word;
  STD_TORCH_CHECK(false, "bat_fast: ", name, " must be one of ", words, ", got ", value);
}

void check_logits(const Named& logits) {
  check_dims(logits, 2, "[N, C]");
  check_floating(logits);
  check_integer("the number of classes", logits.tensor.size(1), 0, std::numeric_limits<int32_t>::max() - 16);
}

}  // namespace bat_fast
