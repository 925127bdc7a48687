// A team of threads updates one row of the memory, held in registers where it fits. Of the rows of a batch that share
// an index the first one owns it, applies them all in order, and writes all their targets: no two teams touch the same
// memory.
#include "kernels/columns.cuh"
#include "kernels/soft_labels.h"

namespace bat_fast {
namespace {

struct Duplicates {
  bool before, after;
};

template <typename Team>
__device__ Duplicates duplicates(const int64_t* index, int64_t row, int64_t rows, const Team& team) {
  float before = 0.0f, after = 0.0f;
  for (int64_t n = team.rank(); n < rows; n += Team::size) {
    if (index[n] != index[row]) continue;
    if (n < row) before = 1.0f;
    if (n > row) after = 1.0f;
  }
  return {team.reduce(before, Max{}) > 0.0f, team.reduce(after, Max{}) > 0.0f};
}

// Applies a row of the batch: calls keep(slot, column, value). A thread handles the same columns throughout, so what it
// kept it may read.
template <bool Held, typename Columns, typename T, typename Kept, typename Keep>
__device__ void apply(const Columns& columns, const T* logits, float momentum, const Kept& kept, Keep keep) {
  const Values<Held, T> z(columns, logits);
  float top = -INFINITY, sum = 0.0f;
  columns.each([&](int slot, int64_t c) { top = maximum(top, z(slot, c)); });
  top = columns.team.reduce(top, Max{});
  columns.each([&](int slot, int64_t c) { sum += fast_exp(z(slot, c) - top); });
  const float scale = 1.0f / columns.team.reduce(sum, Sum{});
  columns.each(
      [&](int slot, int64_t c) { keep(slot, c, blend(momentum, kept(slot, c), fast_exp(z(slot, c) - top) * scale)); });
}

template <bool Held, typename Team, typename T>
__global__ void ensemble_kernel(Ensemble<T, float> e) {
  constexpr int size = kWidest<T>;
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= e.rows) return;  // the same for the whole team, as are the conditions below
  const Columns<Held, Team, size> columns = {team, e.classes};
  if (!e.valid(row)) {
    columns.write(e.targets + row * e.classes, [](int, int64_t) { return NAN; });
    return;
  }
  const Duplicates same = duplicates(e.index, row, e.rows, team);
  if (same.before) return;
  float* memory = e.memory + e.index[row] * e.classes;
  Values<Held, float, size> kept(columns, memory);
  const auto keep = [&](int slot, int64_t c, float v) {
    if constexpr (Held) {
      kept.held[slot] = v;
    } else {
      memory[c] = v;
    }
  };
  const int64_t end = same.after ? e.rows : row + 1;
  for (int64_t n = row; n < end; ++n) {
    if (e.index[n] == e.index[row]) apply<Held>(columns, e.logits + n * e.classes, e.momentum, kept, keep);
  }
  if constexpr (Held) columns.write(memory, kept);
  float sum = 0.0f;
  columns.each([&](int slot, int64_t c) { sum += kept(slot, c); });
  const float scale = 1.0f / team.reduce(sum, Sum{});
  for (int64_t n = row; n < end; ++n) {
    if (e.index[n] != e.index[row]) continue;
    columns.write(e.targets + n * e.classes, [&](int slot, int64_t c) { return kept(slot, c) * scale; });
  }
}

}  // namespace

template <typename T>
void ensemble_cuda(Ensemble<T, float> e, void* stream) {
  constexpr int size = kWidest<T>;  // columns of a piece, in the memory too
  const bool holds = can_hold(e.classes, e.logits) && aligned<size>(e.memory) && aligned<size>(e.targets);
  with_columns(e.rows, e.classes, holds, [&](auto team, auto held, unsigned blocks) {
    ensemble_kernel<held, decltype(team)><<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(e);
  });
}

template void ensemble_cuda(Ensemble<float, float>, void*);
template void ensemble_cuda(Ensemble<half_bits, float>, void*);
template void ensemble_cuda(Ensemble<bfloat_bits, float>, void*);

}  // namespace bat_fast
