// The part of cuda_runtime.h that csrc/torch/device.cpp uses, with errors made to order.
#pragma once

#include <cstddef>
#include <cstdlib>

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
constexpr unsigned cudaHostAllocMapped = 2, cudaHostAllocPortable = 1;

inline cudaError_t last_error = cudaSuccess;
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorString(cudaError_t) { return "made to order"; }
inline cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
