// What every binding shares.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <tuple>

#include "checks.h"
#include "device.h"
#include "tensors.h"

namespace bat_fast {

// A thread gets at least this many elements, and at least as many as repay waking it.
constexpr int64_t kGrain = 16384;
inline int64_t row_grain(int64_t columns) { return kGrain / (columns > 0 ? columns : 1) + 1; }

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
