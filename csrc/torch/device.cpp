// What device.h promises: streams and error reports.
#include "device.h"

#include "kernels/softmax.h"

#if defined(BAT_FAST_CUDA)
#include <cuda_runtime.h>
// Declared weak: torch's CPU builds lack it, and never reach a CUDA kernel.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#endif

namespace bat_fast {

#if defined(BAT_FAST_CUDA)

OnDevice::OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                  "bat_fast: torch's CUDA library (libtorch_cuda.so) is out of reach: build bat_fast again beside this "
                  "torch, pip install --no-build-isolation --force-reinstall --no-deps bat_fast");
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream_));
}

OnDevice::~OnDevice() noexcept(false) {
  const cudaError_t error = cudaGetLastError();
  if (std::uncaught_exceptions() != exceptions_) return;  // another error is on its way: a second ends the process
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
