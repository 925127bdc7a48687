// The columns of a plan by their names, each bound to the member of PlanLayer that it fills. bat_fast/ops/network.py
// writes the same columns; tests/ops/test_network.py compares the names.
#pragma once

#include <cstddef>
#include <iterator>
#include <string>

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

}  // namespace bat_fast
