// What every binding shares: types, layouts, streams and errors. Written against the LibTorch stable ABI (2.10), so
// that one library serves every later torch.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>

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

// Calls f with a value of the stored type; the Python side has checked the dtype for the device.
template <typename F>
void with_cpu_type(const Tensor& t, F f) {
  t.scalar_type() == ScalarType::Double ? f(double{}) : f(float{});
}
template <typename F>
void with_16bit_type(const Tensor& t, F f) {
  t.scalar_type() == ScalarType::Half ? f(half_bits{}) : f(bfloat_bits{});
}
template <typename F>
void with_cuda_type(const Tensor& t, F f) {
  t.scalar_type() == ScalarType::Float ? f(float{}) : with_16bit_type(t, f);
}

// Whether the elements fill one block of memory without gaps or overlaps, in whatever order of dimensions.
bool is_dense(const Tensor& t);
bool same_strides(const Tensor& a, const Tensor& b);
// `t` with the strides (and dtype) of `like`: itself where it fits.
Tensor with_layout_of(const Tensor& t, const Tensor& like);

// A thread gets at least this many elements, and at least as many as repay waking it.
constexpr int64_t kGrain = 16384;
inline int64_t row_grain(int64_t columns) { return kGrain / (columns > 0 ? columns : 1) + 1; }

#if defined(BAT_FAST_CUDA)
// The device of a tensor made current, and its current stream.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t);
  ~OnDevice() noexcept(false);  // reports a failed launch
  void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

struct LabelError;
// Where kernels report a bad label. Throws if an earlier kernel has.
LabelError* label_errors();
#endif

}  // namespace bat_fast

// Registers a kernel for the CPU, and one for CUDA where that is built.
#define BAT_REGISTER_CPU(name, function) \
  STABLE_TORCH_LIBRARY_IMPL(bat_fast, CPU, m) { m.impl(#name, TORCH_BOX(&function)); }
#if defined(BAT_FAST_CUDA)
#define BAT_REGISTER_CUDA(name, function) \
  STABLE_TORCH_LIBRARY_IMPL(bat_fast, CUDA, m) { m.impl(#name, TORCH_BOX(&function)); }
#endif
