// Devices as the bindings use them: streams, error reports, and which kernel a tensor goes to.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <exception>

#include "tensors.h"

namespace bat_fast {

// Where CUDA kernels report a bad label (null on CPU builds). Throws if an earlier kernel has.
struct LabelError;
LabelError* label_errors();

// The device of a tensor made current, and its current stream.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t);
  ~OnDevice() noexcept(false);  // reports a failed launch, unless another error is thrown already
  void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
  const int exceptions_ = std::uncaught_exceptions();
};

// Types that kernels are compiled for: these, where a binding names no others.
template <typename... T>
struct Types {};
using CpuTypes = Types<float, double>;
using CudaTypes = Types<float, half_bits, bfloat_bits>;

constexpr ScalarType stored_as(float) { return ScalarType::Float; }
constexpr ScalarType stored_as(double) { return ScalarType::Double; }
constexpr ScalarType stored_as(half_bits) { return ScalarType::Half; }
constexpr ScalarType stored_as(bfloat_bits) { return ScalarType::BFloat16; }

// Calls f(type) with a value of the stored type of `t`; false where that is none of these.
template <typename... T, typename F>
bool with_type(const Tensor& t, Types<T...>, F f) {
  const ScalarType type = t.scalar_type();
  return ((type == stored_as(T{}) && (f(T{}), true)) || ...);
}

// Calls cpu(type) with a value of the stored type of `t`, which is on the CPU.
template <typename Cpu, typename OnCpu = CpuTypes>
void on_cpu(const Tensor& t, Cpu cpu, OnCpu types = {}) {
  STD_TORCH_CHECK(with_type(t, types, cpu), "bat_fast: CPU kernels take float32 and float64");
}

// Calls cpu(type) or cuda(type, stream) with a value of the stored type of `t`, on its device. The Python side has
// checked that the dtype is one that the device's kernels take.
template <typename Cpu, typename Cuda, typename OnCpu = CpuTypes, typename OnCuda = CudaTypes>
void on_device(const Tensor& t, Cpu cpu, [[maybe_unused]] Cuda cuda, OnCpu cpu_types = {},
               [[maybe_unused]] OnCuda cuda_types = {}) {
#if defined(BAT_FAST_CUDA)
  if (t.is_cuda()) {
    const OnDevice device(t);
    STD_TORCH_CHECK(with_type(t, cuda_types, [&](auto type) { cuda(type, device.stream()); }),
                    "bat_fast: CUDA kernels take float32, float16 and bfloat16");
    return;
  }
#endif
  on_cpu(t, cpu, cpu_types);
}

}  // namespace bat_fast
