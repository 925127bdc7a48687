// What tensors.h promises: layouts, and new tensors.
#include "tensors.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

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

bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && is_dense(t) && t.stride(1) == 1 && t.stride(3) == t.size(1) &&
         t.stride(2) == t.size(3) * t.size(1);
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

namespace {

// Asks for huge pages: a large result is written once into fresh memory, and taking that from the kernel by pages of
// 4 KiB costs more than computing it.
void ask_for_huge_pages([[maybe_unused]] Tensor& t) {
#if defined(__linux__)
  constexpr std::uintptr_t kHuge = 2 << 20;
  const auto begin = reinterpret_cast<std::uintptr_t>(t.mutable_data_ptr());
  const std::uintptr_t end = (begin + t.numel() * t.element_size()) / kHuge * kHuge;
  const std::uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // a hint: errors do not matter
#endif
}

}  // namespace

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
                        : type == ScalarType::Byte     ? aoti_torch_dtype_uint8()
                                                       : aoti_torch_dtype_float32();
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(),
                                                         strides.data(), dtype, device_type, device_index, &handle));
  Tensor made(handle);
  if (made.is_cpu()) ask_for_huge_pages(made);
  return made;
}

Tensor new_like(const Tensor& like) {
  if (!is_dense(like)) return torch::stable::empty_like(like);
  int64_t *sizes, *strides;
  int32_t device_type, device_index, dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(like.get(), &sizes));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(like.get(), &strides));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(like.dim(), sizes, strides, dtype, device_type, device_index, &handle));
  Tensor made(handle);
  if (made.is_cpu()) ask_for_huge_pages(made);
  return made;
}

}  // namespace bat_fast
