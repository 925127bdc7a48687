// What every binding shares: types, layouts, streams and errors. Written against the LibTorch stable ABI (2.10), so
// that one library serves every later torch.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
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

template <typename F>
void with_16bit_type(const Tensor& t, F f) {
  t.scalar_type() == ScalarType::Half ? f(half_bits{}) : f(bfloat_bits{});
}

// Whether the elements fill one block of memory without gaps or overlaps, in whatever order of dimensions.
bool is_dense(const Tensor& t);
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

// A thread gets at least this many elements, and at least as many as repay waking it.
constexpr int64_t kGrain = 16384;
inline int64_t row_grain(int64_t columns) { return kGrain / (columns > 0 ? columns : 1) + 1; }

// Where CUDA kernels report a bad label (null on CPU builds). Throws if an earlier kernel has.
struct LabelError;
LabelError* label_errors();

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

// Calls cpu(type) with a value of the stored type of `t`, which is on the CPU.
template <typename Cpu>
void on_cpu(const Tensor& t, Cpu cpu) {
  const ScalarType type = t.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Double || type == ScalarType::Float,
                  "bat_fast: CPU kernels take float32 and float64");
  type == ScalarType::Double ? cpu(double{}) : cpu(float{});
}

// Calls cpu(type) or cuda(type, stream) with a value of the stored type of `t`, on its device. The Python side has
// checked that the dtype is one that the device's kernels take.
template <typename Cpu, typename Cuda>
void on_device(const Tensor& t, Cpu cpu, [[maybe_unused]] Cuda cuda) {
#if defined(BAT_FAST_CUDA)
  if (t.is_cuda()) {
    const OnDevice device(t);
    const auto run = [&](auto type) { cuda(type, device.stream()); };
    t.scalar_type() == ScalarType::Float ? run(float{}) : with_16bit_type(t, run);
    return;
  }
#endif
  on_cpu(t, cpu);
}

// 16 bits on a CPU are computed in float32, and rounded at the end. All others pass as they are.
inline bool is_narrow(const Tensor& t) { return t.is_cpu() && t.element_size() == 2; }
inline Tensor widened(const Tensor& t) { return is_narrow(t) ? torch::stable::to(t, ScalarType::Float) : t; }
inline Tensor rounded(const Tensor& t, const Tensor& like) {
  return is_narrow(like) ? torch::stable::to(t, like.scalar_type()) : t;
}

}  // namespace bat_fast

// Registers a function for the CPU; BAT_REGISTER also for CUDA where that is built.
#define BAT_REGISTER_CPU(name, function) \
  STABLE_TORCH_LIBRARY_IMPL(bat_fast, CPU, m) { m.impl(#name, TORCH_BOX(&function)); }
#if defined(BAT_FAST_CUDA)
#define BAT_REGISTER(name, function) \
  BAT_REGISTER_CPU(name, function)   \
  STABLE_TORCH_LIBRARY_IMPL(bat_fast, CUDA, m) { m.impl(#name, TORCH_BOX(&function)); }
#else
#define BAT_REGISTER(name, function) BAT_REGISTER_CPU(name, function)
#endif
