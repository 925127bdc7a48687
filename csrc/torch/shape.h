// Sizes and strides of a tensor from the C shim at once: one call instead of one for each dimension.
#pragma once

#include <torch/csrc/stable/library.h>

#include "tensors.h"

namespace bat_fast {

inline const int64_t* sizes_of(const Tensor& t) {
  int64_t* sizes;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(t.get(), &sizes));
  return sizes;
}
inline const int64_t* strides_of(const Tensor& t) {
  int64_t* strides;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(t.get(), &strides));
  return strides;
}

}  // namespace bat_fast
