// Runs a CUDA grid on one CPU thread: every CUDA thread is a fiber, and a barrier is a switch to the next fiber.
//
// Why fibers and not std::thread: a block of 256 threads costs milliseconds under a sanitizer, every run is the same,
// a barrier that some threads never reach is reported by name instead of hanging, and ThreadSanitizer is told exactly
// what CUDA promises: __syncthreads and __syncwarp order memory, shuffles do not, and blocks are not ordered at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <type_traits>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr unsigned volume() const { return x * y * z; }
};
using cudaStream_t = struct CUstream_st*;

namespace cuda_on_host {

constexpr unsigned kWarp = 32;
using Site = std::source_location;

// Where the calling CUDA thread is in the grid.
struct Place {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  unsigned lane() const;
};
const Place& here();

// `address` is that of a kernel that may ask for more than 48 KiB of shared memory, by allow_dynamic_shared.
void run_grid(dim3 grid, dim3 block, std::size_t dynamic_bytes, const std::function<void()>& kernel,
              const void* address);
void allow_dynamic_shared(const void* kernel, std::size_t bytes);

void wait_for_block(Site site);
void wait_for_warp(unsigned mask, Site site);
// Offers a value to the warp, waits for the other lanes, and returns the values of all of them; a lane that has left,
// or that the block lacks, holds kNobody.
const uint64_t* exchange(unsigned mask, uint64_t value, Site site);
constexpr uint64_t kNobody = ~0ull;
// The memory order that __threadfence gives together with the atomics around it.
void fence();

// __shared__ memory of the block: filled with NaN, and closed to AddressSanitizer around each array.
void* shared_memory(const void* key, std::size_t bytes, std::size_t alignment);
void* dynamic_shared_memory();

template <typename Key>
inline constexpr char key_of = 0;

// `__shared__ float a[8];` becomes `auto& a = shared<float[8]>([] {});`: the type of the lambda names the variable,
// and differs between instances of a template, as CUDA's variables do.
template <typename T, typename Key>
T& shared(Key) {
  static_assert(std::is_trivially_default_constructible_v<std::remove_all_extents_t<T>>);
  return *static_cast<T*>(shared_memory(&key_of<Key>, sizeof(T), alignof(T)));
}
template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_memory());
}

// `k<<<grid, block>>>(a, b)` becomes `kernel([&](auto... v) { k(v...); }).on(grid, block)(a, b)`.
template <typename Call>
struct kernel {
  Call call;
  const void* address;
  explicit kernel(Call c, const void* address = nullptr) : call(c), address(address) {}
  auto on(dim3 grid, dim3 block, std::size_t dynamic_bytes = 0, cudaStream_t = nullptr) const {
    return [=, call = call, address = address](auto... arguments) {
      run_grid(grid, block, dynamic_bytes, [&] { call(arguments...); }, address);
    };
  }
};

}  // namespace cuda_on_host
