// A team of threads (a warp, or a block for long rows) walks each row: one pass for the maxima and the sum of
// exponentials, a second one, served by the cache, for the gradient.
#include "kernels/reduce.cuh"
#include "kernels/row_loss.h"

namespace bat_fast {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kLongRow = 2048;  // classes from which a block works on one row

// The running maximum and sum of exponentials of the columns of one thread.
struct OnlineSum {
  float top = -INFINITY, sum = 0.0f;
  __device__ void add(float z) {
    if (z > top) {
      sum = sum * expf(top - z) + 1.0f;
      top = z;
    } else if (z > -INFINITY || z != z) {
      sum += expf(z - top);
    }
  }
};

// The value that a column contributes to the three maxima of RowMaxima.
__device__ void add_maxima(RowMaxima<float>& m, float z, int64_t column, int64_t label) {
  if (column < label) m.before = maximum(m.before, z);
  if (column == label) m.label = z;
  if (column > label) m.after = maximum(m.after, z);
}

template <typename Team>
__device__ void combine(OnlineSum& s, const Team& team) {
  const float top = team.reduce(s.top, Max{});
  // Where a thread saw no finite logit its sum is 0 (or NaN, which must survive).
  const float scaled = s.top == -INFINITY ? s.sum : s.sum * expf(s.top - top);
  s.sum = team.reduce(scaled, Sum{});
  s.top = top;
  if (top == -INFINITY) s.sum = NAN;
}

__device__ void report(LabelError* error, int64_t row, int64_t label, int64_t classes) {
  // The first wrong label of a device is reported, and no thread writes over it: 2 is a report in the making.
  if (error == nullptr || atomicCAS(&error->seen, 0, 2) != 0) return;
  error->row = row;
  error->label = label;
  error->classes = static_cast<int32_t>(classes);
  __threadfence_system();
  atomicExch(&error->seen, 1);
}

template <typename Team>
__device__ int64_t team_row() {
  return static_cast<int64_t>(blockIdx.x) * (kThreads / Team::size) + threadIdx.x / Team::size;
}

template <typename Team, typename T>
__global__ void ce_grad_kernel(Logits<T> in, float sign, T* grad, float* per_sample, LabelError* error) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;  // the same for the whole team
  const T* z = in.data + row * in.classes;
  T* g = grad + row * in.classes;
  const int64_t y = in.target[row];
  const bool valid = valid_label(y, in.classes);
  OnlineSum s;
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) s.add(load(z[c]));
  combine(s, team);
  const float scale = valid ? sign / s.sum : NAN;
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) {
    const float p = scale * expf(load(z[c]) - s.top);
    g[c] = store<T>(c == y ? p - sign : p);
  }
  if (team.rank() == 0) {
    per_sample[row] = valid ? sign * (logf(s.sum) + (s.top - load(z[y]))) : NAN;
    if (!valid) report(error, row, y, in.classes);
  }
}

template <typename Team, typename T>
__global__ void bat_rows_kernel(Logits<T> in, float alpha, float* weights, float* per_sample, RowNorm<float>* norm,
                                LabelError* error) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;
  const T* z = in.data + row * in.classes;
  const int64_t y = in.target[row];
  const bool valid = valid_label(y, in.classes);
  OnlineSum s;
  RowMaxima<float> m = {-INFINITY, -INFINITY, -INFINITY};
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) {
    const float v = load(z[c]);
    s.add(v);
    add_maxima(m, v, c, y);
  }
  combine(s, team);
  m.before = team.reduce(m.before, Max{});
  m.after = team.reduce(m.after, Max{});
  m.label = team.reduce(m.label, Max{});
  if (team.rank() == 0) {
    const RowNorm<float> row_norm = {s.top, logf(s.sum)};
    norm[row] = row_norm;
    per_sample[row] = valid ? row_norm.cross_entropy(m.label) : NAN;
    weights[row] = valid ? bat_weight(m, row_norm, alpha) : NAN;
    if (!valid) report(error, row, y, in.classes);
  }
}

// One block: the weighted mean of a batch in a fixed order, so that a run can be repeated bit for bit.
__global__ void weighted_mean_kernel(const float* weights, const float* values, int64_t count, bool by_weights,
                                     float* mean) {
  const BlockTeam<kThreads> team;
  float total = 0.0f, weight = 0.0f;
  for (int64_t n = threadIdx.x; n < count; n += kThreads) {
    total += weights[n] * values[n];
    weight += weights[n];
  }
  total = team.reduce(total, Sum{});
  weight = team.reduce(weight, Sum{});
  if (threadIdx.x == 0) *mean = total / (by_weights ? weight : static_cast<float>(count));
}

template <typename Team, typename T>
__global__ void ce_backward_kernel(Logits<T> in, const RowNorm<float>* norm, const float* scale, T* grad) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;
  const T* z = in.data + row * in.classes;
  T* g = grad + row * in.classes;
  const int64_t y = in.target[row];
  const float s = scale[row];
  const RowNorm<float> row_norm = norm[row];
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) {
    const float p = s * row_norm.probability(load(z[c]));
    g[c] = store<T>(c == y ? p - s : p);
  }
}

// Calls launch(team, blocks) with the team that suits the length of a row.
template <typename T, typename Launch>
void with_team(const Logits<T>& in, Launch launch) {
  if (in.rows == 0) return;
  if (in.classes >= kLongRow) {
    launch(BlockTeam<kThreads>{}, static_cast<unsigned>(in.rows));
  } else {
    constexpr int64_t rows = kThreads / kWarp;
    launch(WarpTeam{}, static_cast<unsigned>((in.rows + rows - 1) / rows));
  }
}

}  // namespace

template <typename T>
void ce_grad_cuda(Logits<T> in, float sign, T* grad, float* per_sample, LabelError* error, void* stream) {
  with_team(in, [&](auto team, unsigned blocks) {
    ce_grad_kernel<decltype(team)>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(in, sign, grad, per_sample, error);
  });
}

template <typename T>
void bat_rows_cuda(Logits<T> in, float alpha, bool by_weights, float* weights, float* per_sample, RowNorm<float>* norm,
                   float* loss, LabelError* error, void* stream) {
  with_team(in, [&](auto team, unsigned blocks) {
    bat_rows_kernel<decltype(team)>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(in, alpha, weights, per_sample, norm, error);
  });
  weighted_mean_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(weights, per_sample, in.rows, by_weights,
                                                                              loss);
}

template <typename T>
void ce_backward_cuda(Logits<T> in, const RowNorm<float>* norm, const float* scale, T* grad, void* stream) {
  with_team(in, [&](auto team, unsigned blocks) {
    ce_backward_kernel<decltype(team)>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(in, norm, scale, grad);
  });
}

#define BAT_INSTANTIATE(T)                                                                                          \
  template void ce_grad_cuda(Logits<T>, float, T*, float*, LabelError*, void*);                                     \
  template void bat_rows_cuda(Logits<T>, float, bool, float*, float*, RowNorm<float>*, float*, LabelError*, void*); \
  template void ce_backward_cuda(Logits<T>, const RowNorm<float>*, const float*, T*, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
