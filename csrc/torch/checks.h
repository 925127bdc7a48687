// What the kernels rely on, checked where no caller can go around it: the faces in Python check for people, these
// checks hold for a compiled graph, an exported program and a call of the bare operator too. A check costs some
// nanoseconds, and its error is one line that names the argument.
#pragma once

#include <initializer_list>
#include <limits>
#include <optional>
#include <string>

#include "tensors.h"

namespace bat_fast {

struct Named {
  const char* name;
  const Tensor& tensor;
};

// Of exactly these sizes.
void check_sizes(const Named& t, std::initializer_list<int64_t> sizes);
void check_dims(const Named& t, int64_t dims, const char* form);
void check_type(const Named& t, ScalarType type);
// float32 or float64, or 16 bits: a binding knows which of them its kernels take.
void check_floating(const Named& t);
void check_beside(const Named& t, const Named& other);  // on one device
void check_like(const Named& t, const Named& other);    // of one shape, on one device

// For what is written: no two elements share memory; and none with an argument that is read while that happens.
// `copied`: a binding copies what has gaps before it writes.
void check_alone(const Named& written);
void check_apart(const Named& written, const Named& read, bool copied = true);

// int64, one for each of `count` rows beside `other`; on a CPU all within [0, end). On CUDA the kernels look.
void check_ids(const Named& t, int64_t count, const Named& other);
void check_index(const Named& t, int64_t count, int64_t end, const Named& other);

void check_number(const char* name, double value, double low = -std::numeric_limits<double>::max(),
                  double high = std::numeric_limits<double>::max());
void check_integer(const char* name, int64_t value, int64_t low, int64_t high);
void check_step(double step_size, double eps, double lo, double hi);
void check_word(const char* name, const std::string& value, std::initializer_list<const char*> allowed);

// Logits [N, C] with a target [N] of their classes.
void check_logits(const Named& logits);
inline void check_rows(const Named& logits, const Tensor& target, const char* name = "target") {
  check_logits(logits);
  check_index({name, target}, logits.tensor.size(0), logits.tensor.size(1), logits);
}
// Like `other` in all: shape, type, device.
inline void check_same(const Named& t, const Named& other) {
  check_like(t, other);
  check_type(t, other.tensor.scalar_type());
}

}  // namespace bat_fast
