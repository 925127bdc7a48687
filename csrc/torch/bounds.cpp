// What checks.h promises about bounds: ids stay inside, and what is written shares no memory with anything.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "checks.h"
#include "shape.h"

namespace bat_fast {
namespace {

// The bytes from the first element to behind the last one; strides of torch are never negative.
struct Extent {
  const char *begin, *end;
};
Extent extent(const Tensor& t) {
  const int64_t *sizes = sizes_of(t), *strides = strides_of(t);
  int64_t last = 0;
  for (int64_t i = 0; i < t.dim(); ++i) last += (sizes[i] - 1) * strides[i];
  const auto* begin = static_cast<const char*>(t.const_data_ptr());
  return {begin, begin + (last + 1) * static_cast<int64_t>(t.element_size())};
}

}  // namespace

void check_alone(const Named& written) {
  const Tensor& t = written.tensor;
  if (t.is_contiguous() || t.numel() == 0 || is_dense(t)) return;
  const int64_t *sizes = sizes_of(t), *strides = strides_of(t), dims = t.dim();
  std::vector<int64_t> order;
  for (int64_t i = 0; i < dims; ++i) {
    if (sizes[i] > 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return strides[a] < strides[b]; });
  int64_t reach = 0;  // of the dimensions so far, in elements from the first
  for (const int64_t i : order) {
    STD_TORCH_CHECK(strides[i] > reach, "bat_fast: ", written.name,
                    " is written in place, and its elements share memory: pass .contiguous()");
    reach += (sizes[i] - 1) * strides[i];
  }
}

// Views with gaps may lie between each other, like the channels of a batch: where these are copied before anything is
// written, only tensors without gaps have to lie apart.
void check_apart(const Named& written, const Named& read, bool copied) {
  if (written.tensor.numel() == 0 || read.tensor.numel() == 0) return;
  const Extent a = extent(written.tensor), b = extent(read.tensor);
  if (a.begin >= b.end || b.begin >= a.end) return;
  STD_TORCH_CHECK(copied && (!is_dense(written.tensor) || !is_dense(read.tensor)), "bat_fast: ", written.name,
                  " is written in place and shares memory with ", read.name, ": pass a copy of one of them");
}

void check_ids(const Named& t, int64_t count, const Named& other) {
  check_type(t, ScalarType::Long);
  check_sizes(t, {count});
  check_beside(t, other);
}

void check_index(const Named& t, int64_t count, int64_t end, const Named& other) {
  check_ids(t, count, other);
  if (!t.tensor.is_cpu()) return;
  const auto* at = pointer<int64_t>(t.tensor);
  const int64_t step = count > 1 ? t.tensor.stride(0) : 1;
  if (step == 0) count = 1;  // one value, expanded: perhaps to more rows than anybody could look at
  bool inside = true;
  for (int64_t i = 0; i < count; ++i) inside &= static_cast<uint64_t>(at[i * step]) < static_cast<uint64_t>(end);
  if (inside) return;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t value = at[i * step];
    STD_TORCH_CHECK(value >= 0 && value < end, "bat_fast: ", t.name, " holds ", value, " in row ", i, ", outside [0, ",
                    end, ")");
  }
}

}  // namespace bat_fast
