// A plan as it comes: its columns by their names, each bound to the member of PlanLayer that it fills, and whether a
// layer stays within the values and the weights. bat_fast/ops/network.py
// writes the same columns; tests/ops/test_network.py compares the names.
#pragma once

#include <cstddef>
#include <iterator>
#include <string>

#include "checks.h"
#include "kernels/lanes.h"

namespace bat_fast {

struct Column {
  const char* name;
  size_t begin;
};
#define BAT_COLUMN(member) {#member, offsetof(PlanLayer, member)}
constexpr Column kColumns[] = {
    BAT_COLUMN(kind),          BAT_COLUMN(source),       BAT_COLUMN(other),           BAT_COLUMN(before),
    BAT_COLUMN(target),        BAT_COLUMN(activation),   BAT_COLUMN(into.height),     BAT_COLUMN(into.width),
    BAT_COLUMN(into.channels), BAT_COLUMN(out.height),   BAT_COLUMN(out.width),       BAT_COLUMN(out.channels),
    BAT_COLUMN(window.height), BAT_COLUMN(window.width), BAT_COLUMN(window.stride_y), BAT_COLUMN(window.stride_x),
    BAT_COLUMN(window.pad_y),  BAT_COLUMN(window.pad_x), BAT_COLUMN(weight),          BAT_COLUMN(bias),
    BAT_COLUMN(adds_source),   BAT_COLUMN(adds_other)};
#undef BAT_COLUMN

constexpr bool every_member_is_a_column() {
  for (size_t i = 0; i < std::size(kColumns); ++i) {
    if (kColumns[i].begin != i * sizeof(int64_t)) return false;
  }
  return sizeof(PlanLayer) == sizeof(int64_t) * std::size(kColumns);
}
static_assert(every_member_is_a_column());

inline std::string column_names() {
  std::string names;
  for (const Column& column : kColumns) names += std::string(names.empty() ? "" : " ") + column.name;
  return names;
}

// Known, and so small that no sum of sizes overflows.
inline bool sane(const PlanLayer& a) {
  constexpr int64_t kMost = int64_t{1} << 28, kWide = int64_t{1} << 20;
  const Map &in = a.into, &out = a.out;
  for (const int64_t size : {in.height, in.width, in.channels, out.height, out.width, out.channels}) {
    if (size < 1 || size >= kWide) return false;
  }
  const Window& w = a.window;
  for (const int64_t size : {w.height, w.width, w.stride_y, w.stride_x, w.pad_y, w.pad_x}) {
    if (size < 0 || size >= kWide) return false;
  }
  for (const int64_t place : {a.source, a.other, a.before, a.target, a.weight, a.bias}) {
    if (place < -1 || place >= kMost) return false;
  }
  const auto kind = static_cast<int64_t>(a.kind), activation = static_cast<int64_t>(a.activation);
  return in.size() < kMost && out.size() < kMost && kind >= 0 && kind <= static_cast<int64_t>(LayerKind::kSum) &&
         activation >= 0 && activation <= static_cast<int64_t>(Activation::kSilu);
}

inline bool within(int64_t begin, int64_t size, int64_t end) { return begin >= 0 && begin <= end - size; }

// Whether a layer that is sane reads and writes what is there.
inline bool fits(const PlanLayer& a, int64_t values, int64_t weights) {
  const Map &in = a.into, &out = a.out;
  const bool window = a.kind == LayerKind::kWindow, pool = a.kind == LayerKind::kMaxPool;
  if (!within(a.source, in.size(), values) || !within(a.target, out.size(), values)) return false;
  if (a.other >= 0 && !within(a.other, out.size(), values)) return false;
  if (a.activation == Activation::kSilu && !within(a.before, out.size(), values)) return false;
  if (a.bias >= 0 && !within(a.bias, out.channels, weights)) return false;
  if (window || pool) {
    const Window& w = a.window;
    if (w.height < 1 || w.width < 1 || w.stride_y < 1 || w.stride_x < 1) return false;
    if (pool) return in.channels == out.channels;
    const int64_t most = weights / (w.height * w.width);  // a product of all four may overflow
    return in.channels * out.channels <= most &&
           within(a.weight, w.height * w.width * in.channels * out.channels, weights);
  }
  if (a.kind == LayerKind::kAffine && a.weight >= 0 && !within(a.weight, in.channels, weights)) return false;
  if (a.kind == LayerKind::kMean) return out.pixels() == 1 && in.channels == out.channels;
  return in.size() == out.size() && in.channels == out.channels;
}

// A plan with the weights that it names, and the images that it is for.
inline void check_network(const Named& x, const Tensor& plan, const Tensor& weights, int64_t classes) {
  check_dims(x, 4, "[N, C, H, W]");
  check_type({"plan", plan}, ScalarType::Long);
  check_beside({"plan", plan}, x);
  check_dims({"weights", weights}, 1, "flat");
  check_type({"weights", weights}, x.tensor.scalar_type());
  check_beside({"weights", weights}, x);
  check_integer("classes", classes, 1, 1 << 20);
}

}  // namespace bat_fast
