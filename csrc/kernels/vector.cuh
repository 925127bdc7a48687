// Several neighbouring elements as one memory access.
#pragma once

#include <cuda_runtime.h>

#include "kernels/portable.h"

namespace bat_fast {

template <typename T, int Size>
struct alignas(sizeof(T) * Size) Vector {
  T at[Size];
};

// The widest access of a thread is 16 bytes.
template <typename T>
constexpr int kWidest = 16 / sizeof(T);

template <int Size, typename T>
bool aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Vector<T, Size>) == 0;
}

}  // namespace bat_fast
