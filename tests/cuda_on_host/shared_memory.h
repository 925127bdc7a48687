// The __shared__ memory of a block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "fiber.h"

namespace cuda_on_host {

inline std::size_t rounded_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// Shared memory of one block: filled with NaN, closed to AddressSanitizer but for the arrays that are taken from it.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes)
      : bytes_(rounded_up(bytes + 1, 256)), memory_(static_cast<char*>(std::aligned_alloc(256, bytes_))) {
    std::memset(memory_, 0xff, bytes_);  // NaN: nobody may count on zeros
    close_memory(memory_, bytes_);
  }
  ~SharedMemory() {
    open_memory(memory_, bytes_);
    std::free(memory_);
  }
  SharedMemory(const SharedMemory&) = delete;

  void* take(std::size_t bytes, std::size_t alignment) {
    const std::size_t begin = rounded_up(used_, std::max<std::size_t>(alignment, 16));
    if (begin + bytes > bytes_) fail("more than 48 KiB of static shared memory");
    used_ = begin + bytes + 64;  // closed memory between two arrays
    open_memory(memory_ + begin, bytes);
    return memory_ + begin;
  }

 private:
  std::size_t bytes_, used_ = 0;
  char* memory_;
};

}  // namespace cuda_on_host
