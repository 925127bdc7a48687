// A team of threads updates one row of the memory. Of the rows of a batch that share an index the first one owns it,
// applies them all in order, and writes all their targets: no two teams touch the same memory.
#include "kernels/reduce.cuh"
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

// A thread handles the same columns throughout, so what it wrote to the memory it may read.
template <typename Team, typename T>
__device__ void apply(const Ensemble<T, float>& e, int64_t row, float* kept, const Team& team) {
  const T* z = e.logits + row * e.classes;
  float top = -INFINITY, sum = 0.0f;
  for (int64_t c = team.rank(); c < e.classes; c += Team::size) top = maximum(top, load(z[c]));
  top = team.reduce(top, Max{});
  for (int64_t c = team.rank(); c < e.classes; c += Team::size) sum += fast_exp(load(z[c]) - top);
  const float scale = 1.0f / team.reduce(sum, Sum{});
  for (int64_t c = team.rank(); c < e.classes; c += Team::size)
    kept[c] = blend(e.momentum, kept[c], fast_exp(load(z[c]) - top) * scale);
}

template <typename Team, typename T>
__global__ void ensemble_kernel(Ensemble<T, float> e) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= e.rows) return;  // the same for the whole team, as are the conditions below
  float* target = e.targets + row * e.classes;
  if (!e.valid(row)) {
    for (int64_t c = team.rank(); c < e.classes; c += Team::size) target[c] = NAN;
    return;
  }
  const Duplicates same = duplicates(e.index, row, e.rows, team);
  if (same.before) return;
  float* kept = e.memory + e.index[row] * e.classes;
  const int64_t end = same.after ? e.rows : row + 1;
  for (int64_t n = row; n < end; ++n) {
    if (e.index[n] == e.index[row]) apply(e, n, kept, team);
  }
  float sum = 0.0f;
  for (int64_t c = team.rank(); c < e.classes; c += Team::size) sum += kept[c];
  const float scale = 1.0f / team.reduce(sum, Sum{});
  for (int64_t n = row; n < end; ++n) {
    if (e.index[n] != e.index[row]) continue;
    for (int64_t c = team.rank(); c < e.classes; c += Team::size) e.targets[n * e.classes + c] = kept[c] * scale;
  }
}

}  // namespace

template <typename T>
void ensemble_cuda(Ensemble<T, float> e, void* stream) {
  with_team(e.rows, e.classes, [&](auto team, unsigned blocks) {
    ensemble_kernel<decltype(team)><<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(e);
  });
}

template void ensemble_cuda(Ensemble<float, float>, void*);
template void ensemble_cuda(Ensemble<half_bits, float>, void*);
template void ensemble_cuda(Ensemble<bfloat_bits, float>, void*);

}  // namespace bat_fast
