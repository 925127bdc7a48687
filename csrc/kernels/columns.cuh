// The columns of a row that a thread of a team works on, and its values of them: read where they are needed, or held in
// registers, which were filled by 16-byte loads that all wait at once.
#pragma once

#include <type_traits>

#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace bat_fast {

constexpr int kHeld = 32;                        // values of a row that a thread holds
constexpr int64_t kHeldColumns = kHeld * kWarp;  // of the longest row that a warp holds

// Rows of whole pieces of 16 bytes. `Size` is the number of columns of a piece.
template <typename T, typename... Arrays>
bool can_hold(int64_t columns, const T* first, const Arrays*... rest) {
  constexpr int size = kWidest<T>;
  return columns <= kHeldColumns && columns % size == 0 && aligned<size>(first) && (aligned<size>(rest) && ...);
}

template <bool Held, typename Team, int Size>
struct Columns {
  Team team;
  int64_t count;

  // Calls visit(k, first) for each piece of this thread: k is its number, `first` its first column.
  template <typename Visit>
  __device__ void pieces(Visit visit) const {
#pragma unroll
    for (int k = 0; k < kHeld / Size; ++k) {
      const int first = (k * kWarp + team.rank()) * Size;
      if (first < static_cast<int>(count)) visit(k, first);
    }
  }
  // Calls visit(slot, column) for each column of this thread: the slot is where it is held.
  template <typename Visit>
  __device__ void each(Visit visit) const {
    if constexpr (Held) {
      pieces([&](int k, int first) {
#pragma unroll
        for (int j = 0; j < Size; ++j) visit(k * Size + j, first + j);
      });
    } else {
      for (int64_t c = team.rank(); c < count; c += Team::size) visit(0, c);
    }
  }
  // Writes value(slot, column) to each column of this thread.
  template <typename T, typename Value>
  __device__ void write(T* to, Value value) const {
    const auto first_of = [&](int slot, int64_t c, float (&v)[1]) { v[0] = value(slot, c); };
    write_all<1>({to}, first_of);
  }
  // The same for several rows: value(slot, column, v) sets v[n] of row n. One that is null is not written.
  template <int Rows, typename T, typename Value>
  __device__ void write_all(T* const (&to)[Rows], Value value) const {
    if constexpr (Held) {
      pieces([&](int k, int first) {
        Vector<T, Size> out[Rows];
#pragma unroll
        for (int j = 0; j < Size; ++j) {
          float v[Rows];
          value(k * Size + j, first + j, v);
#pragma unroll
          for (int n = 0; n < Rows; ++n) out[n].at[j] = store<T>(v[n]);
        }
#pragma unroll
        for (int n = 0; n < Rows; ++n) {
          if (Rows == 1 || to[n] != nullptr) *reinterpret_cast<Vector<T, Size>*>(to[n] + first) = out[n];
        }
      });
    } else {
      each([&](int slot, int64_t c) {
        float v[Rows];
        value(slot, c, v);
#pragma unroll
        for (int n = 0; n < Rows; ++n) {
          if (Rows == 1 || to[n] != nullptr) to[n][c] = store<T>(v[n]);
        }
      });
    }
  }
};

// This thread's values of a row; `row` may be null where none is asked for.
template <bool Held, typename T, int Size = kWidest<T>>
struct Values {
  const T* row;
  float held[Held ? bat_fast::kHeld : 1];

  template <typename Columns>
  __device__ Values(const Columns& columns, const T* row) : row(row) {
    if constexpr (Held) {
      if (row == nullptr) return;
      columns.pieces([&](int k, int first) {
        const auto v = *reinterpret_cast<const Vector<T, Size>*>(row + first);
#pragma unroll
        for (int j = 0; j < Size; ++j) held[k * Size + j] = load(v.at[j]);
      });
    }
  }
  __device__ float operator()(int slot, int64_t column) const { return Held ? held[slot] : load(row[column]); }
};

template <bool Held, typename T, typename Columns>
__device__ RowNorm<float> row_norm(const Columns& columns, const Values<Held, T>& z) {
  if constexpr (!Held) return team_norm(columns.team, z.row, columns.count);
  float top = -INFINITY, sum = 0.0f;
  columns.each([&](int slot, int64_t c) { top = maximum(top, z(slot, c)); });
  top = columns.team.reduce(top, Max{});
  columns.each([&](int slot, int64_t c) { sum += expf(z(slot, c) - top); });
  sum = columns.team.reduce(sum, Sum{});
  return {top, top == -INFINITY ? NAN : logf(sum)};
}

// Calls launch(team, held, blocks): `held` is a std::bool_constant.
template <typename Launch>
void with_columns(int64_t rows, int64_t columns, bool held, Launch launch) {
  if (held) {
    with_team(rows, 1, [&](auto, unsigned blocks) { launch(WarpTeam{}, std::true_type{}, blocks); });
  } else {
    with_team(rows, columns, [&](auto team, unsigned blocks) { launch(team, std::false_type{}, blocks); });
  }
}

}  // namespace bat_fast
