// The definitions behind bind.h.
#include <algorithm>
#include <array>
#include <numeric>

#include "bind.h"
#include "kernels/row_loss.h"

#if defined(BAT_FAST_CUDA)
#include <cuda_runtime.h>
// Declared weak: torch's CPU builds lack it, and never reach a CUDA kernel.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#endif

namespace bat_fast {

bool is_dense(const Tensor& t) {
  if (t.is_contiguous()) return true;
  std::array<int64_t, 16> order;
  const int64_t dims = t.dim();
  if (dims > static_cast<int64_t>(order.size())) return false;
  std::iota(order.begin(), order.begin() + dims, 0);
  std::sort(order.begin(), order.begin() + dims, [&](int64_t a, int64_t b) { return t.stride(a) < t.stride(b); });
  int64_t expected = 1;
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t size = t.size(order[i]);
    if (size == 1) continue;
    if (t.stride(order[i]) != expected) return false;
    expected *= size;
  }
  return true;
}

bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.dim(); ++i) {
    if (a.size(i) != 1 && a.stride(i) != b.stride(i)) return false;
  }
  return true;
}

Tensor with_layout_of(const Tensor& t, const Tensor& like) {
  if (same_strides(t, like)) return t;
  Tensor copy = torch::stable::empty_like(like);
  return torch::stable::copy_(copy, t);
}

Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  std::array<int64_t, 4> strides;
  int64_t count = 1;
  for (int64_t i = static_cast<int64_t>(sizes.size()) - 1; i >= 0; --i) {
    strides[i] = count;
    count *= sizes.begin()[i];
  }
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const int32_t dtype = type == ScalarType::Double     ? aoti_torch_dtype_float64()
                        : type == ScalarType::Half     ? aoti_torch_dtype_float16()
                        : type == ScalarType::BFloat16 ? aoti_torch_dtype_bfloat16()
                                                       : aoti_torch_dtype_float32();
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(),
                                                         strides.data(), dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

#if defined(BAT_FAST_CUDA)

OnDevice::OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream_));
}

OnDevice::~OnDevice() noexcept(false) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "bat_fast: a kernel did not start: ", cudaGetErrorString(error));
}

LabelError* label_errors() {
  static LabelError* const error = [] {
    void* memory = nullptr;  // on the host, mapped: the device writes it, the host reads it without waiting
    STD_TORCH_CHECK(
        cudaHostAlloc(&memory, sizeof(LabelError), cudaHostAllocMapped | cudaHostAllocPortable) == cudaSuccess,
        "bat_fast: no pinned memory for error reports");
    return new (memory) LabelError{};
  }();
  if (__atomic_load_n(&error->seen, __ATOMIC_ACQUIRE) == 1) {
    const LabelError found = *error;
    __atomic_store_n(&error->seen, 0, __ATOMIC_RELEASE);
    STD_TORCH_CHECK(false, "target of an earlier call held class ", found.label, " in row ", found.row,
                    ", outside [0, ", found.classes,
                    "): number the classes from 0, or give the model that many outputs");
  }
  return error;
}

#else

LabelError* label_errors() { return nullptr; }

#endif

}  // namespace bat_fast
