// Tensors as the bindings use them: memory, layouts, new ones. Written against the LibTorch stable ABI (2.10), so that
// one library serves every later torch.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>

#include "kernels/portable.h"

namespace bat_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
T* pointer(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}
template <typename T>
const T* pointer(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <typename T>
const T* pointer_or_null(const std::optional<Tensor>& t) {
  return t.has_value() ? pointer<T>(*t) : nullptr;
}

// Whether the elements fill one block of memory without gaps or overlaps, in whatever order of dimensions.
bool is_dense(const Tensor& t);
// [N, C, H, W] with the channels innermost.
bool is_channels_last(const Tensor& t);
bool same_strides(const Tensor& a, const Tensor& b);
// `t` with the strides (and dtype) of `like`: itself where it fits.
Tensor with_layout_of(const Tensor& t, const Tensor& like);

// `t` itself where it is contiguous: torch::stable::contiguous would call the dispatcher to find out.
inline Tensor packed(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

// A new tensor on the device of `like`. Straight from the C shim: the boxed call of stable::new_empty takes 4 us.
Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type);
// The same for a tensor with shape, strides and dtype of `like`, or packed where that has gaps.
Tensor new_like(const Tensor& like);
inline Tensor new_matrix(const Tensor& like) {
  return new_tensor(like, {like.size(0), like.size(1)}, like.scalar_type());
}

// 16 bits on a CPU are computed in float32, and rounded at the end. All others pass as they are.
inline bool is_narrow(const Tensor& t) { return t.is_cpu() && t.element_size() == 2; }
inline Tensor widened(const Tensor& t) { return is_narrow(t) ? torch::stable::to(t, ScalarType::Float) : t; }
inline Tensor rounded(const Tensor& t, const Tensor& like) {
  return is_narrow(like) ? torch::stable::to(t, like.scalar_type()) : t;
}

}  // namespace bat_fast
