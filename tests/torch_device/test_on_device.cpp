// OnDevice of csrc/torch/device.cpp, on the host: what torch and CUDA answer is made to order.
#include <cstdio>
#include <stdexcept>
#include <string>

#include "torch/device.cpp"

int guards = 0;
extern "C" {
uint64_t aoti_torch_abi_version() { return TORCH_ABI_VERSION; }
AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = reinterpret_cast<DeviceGuardHandle>(&++guards);
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return --guards, 0; }
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle, int32_t* index) { return *index = 1, 0; }
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle) { return 0; }
#if defined(WITH_CUDA)
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  *stream = reinterpret_cast<void*>(static_cast<intptr_t>(device));
  return 0;
}
#endif
}

namespace {

const bat_fast::Tensor tensor(reinterpret_cast<AtenTensorHandle>(&guards));

// What is thrown by a call on the device, if anything, with a launch that fails and a body that throws.
std::string thrown(bool launch_fails, bool body_throws) {
  try {
    const bat_fast::OnDevice device(tensor);
    last_error = launch_fails ? 9 : cudaSuccess;
    if (body_throws) throw std::runtime_error("body");
    if (device.stream() != reinterpret_cast<void*>(1)) return "wrong stream";
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// The same while another exception unwinds the stack.
struct InDestructor {
  std::string* found;
  ~InDestructor() { *found = thrown(true, false); }
};

int failures = 0;
void expect(const char* what, const std::string& found, const std::string& part) {
  const bool right = part.empty() ? found.empty() : found.find(part) != std::string::npos;
  if (!right || guards != 0 || last_error != cudaSuccess) {
    std::printf("FAILED: %s: \"%s\", %d guards\n", what, found.c_str(), guards);
    ++failures;
  }
}

}  // namespace

int main() {
#if defined(WITH_CUDA)
  expect("nothing fails", thrown(false, false), "");
  expect("a launch fails", thrown(true, false), "a kernel did not start: made to order");
  expect("the body throws", thrown(false, true), "body");
  expect("both", thrown(true, true), "body");
  std::string found;
  try {
    const InDestructor unwinds{&found};
    throw std::runtime_error("outer");
  } catch (const std::runtime_error&) {
  }
  expect("a launch fails in a call made while unwinding", found, "a kernel did not start");
#else
  expect("torch without CUDA", thrown(false, false), "libtorch_cuda.so) is out of reach");
#endif
  return failures;
}
