// The products of all pairs of rows of a matrix, by torch's matrix product.
#pragma once

#include <algorithm>

#include "kernels/discrimination.h"
#include "rows.h"

namespace bat_fast {

constexpr int64_t kMirrorTile = 128;  // rows of a tile when a CPU computes one triangle and copies it

inline Tensor rows(Tensor& t, int64_t first, int64_t count) { return torch::stable::narrow(t, 0, first, count); }

// Products of unit features, rows first .. first + count of U U^T.
inline void products(Tensor& unit, int64_t first, int64_t count, Tensor& out) {
  const int64_t n = unit.size(0);
  if (unit.is_cuda() || count < n || n < 4 * kMirrorTile) {
    Tensor own = rows(unit, first, count), out_rows = rows(out, 0, count);
    multiply(own, torch::stable::transpose(unit, 0, 1), out_rows);
    return;
  }
  for (int64_t i = 0; i < n; i += kMirrorTile) {  // the upper triangle, by tiles
    const int64_t height = std::min(kMirrorTile, n - i);
    Tensor own = rows(unit, i, height), right = rows(unit, i, n - i), band = rows(out, i, height);
    Tensor corner = torch::stable::narrow(band, 1, i, n - i);
    multiply(own, torch::stable::transpose(right, 0, 1), corner);
  }
  torch::stable::parallel_for(0, n, row_grain(n), [&](int64_t begin, int64_t end) {
    unit.scalar_type() == ScalarType::Double ? mirror_cpu(pointer<double>(out), n, kMirrorTile, begin, end)
                                             : mirror_cpu(pointer<float>(out), n, kMirrorTile, begin, end);
  });
}

}  // namespace bat_fast
