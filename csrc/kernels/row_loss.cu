// A team of threads (a warp, or a block for long rows) walks each row: one pass for the maxima and the sum of
// exponentials, further ones, served by the cache, for the sums and gradients.
#include "kernels/reduce.cuh"
#include "kernels/row_loss.h"

namespace bat_fast {
namespace {

// The value that a column contributes to the three maxima of RowMaxima.
__device__ void add_maxima(RowMaxima<float>& m, float z, int64_t column, int64_t label) {
  if (column < label) m.before = maximum(m.before, z);
  if (column == label) m.label = z;
  if (column > label) m.after = maximum(m.after, z);
}

template <typename Team, typename T>
__global__ void bat_rows_kernel(Logits<T> in, float alpha, float* weights, float* per_sample, RowNorm<float>* norm,
                                LabelError* error) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;  // the same for the whole team
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
  const RowNorm<float> n = s.norm(team);
  m.before = team.reduce(m.before, Max{});
  m.after = team.reduce(m.after, Max{});
  m.label = team.reduce(m.label, Max{});
  if (team.rank() == 0) {
    norm[row] = n;
    per_sample[row] = valid ? n.cross_entropy(m.label) : NAN;
    weights[row] = valid ? bat_weight(m, n, alpha) : NAN;
    if (!valid) report(error, row, y, in.classes);
  }
}

template <typename Team, typename T>
__global__ void bat_backward_kernel(Logits<T> in, const float* weights, const RowNorm<float>* norm,
                                    const float* grad_loss, const float* total, T* grad) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;
  const T* z = in.data + row * in.classes;
  T* g = grad + row * in.classes;
  const int64_t y = in.target[row];
  const float s = *grad_loss / *total * weights[row];
  const RowNorm<float> n = norm[row];
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) {
    const float p = s * n.probability(load(z[c]));
    g[c] = store<T>(c == y ? p - s : p);
  }
}

template <typename Team, typename T>
__global__ void soft_target_kernel(Logits<T> in, const T* soft, float scale, float* per_sample, T* grad) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;
  const int64_t start = row * in.classes;
  const T *z = in.data + start, *t = soft + start;
  const RowNorm<float> norm = team_norm(team, z, in.classes);
  float mean_difference = 0.0f, square = 0.0f;
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) {
    const float p = norm.probability(load(z[c])), d = p - load(t[c]);
    mean_difference += p * d;
    square += d * d;
  }
  mean_difference = team.reduce(mean_difference, Sum{});
  square = team.reduce(square, Sum{});
  const float share = 1.0f / static_cast<float>(in.classes);
  for (int64_t c = team.rank(); c < in.classes; c += Team::size) {
    grad[start + c] = store<T>(soft_grad(norm.probability(load(z[c])), load(t[c]), mean_difference, scale * share));
  }
  if (team.rank() == 0) per_sample[row] = square * share;
}

}  // namespace

template <typename T>
void bat_rows_cuda(Logits<T> in, float alpha, bool by_weights, float* weights, float* per_sample, RowNorm<float>* norm,
                   float* loss, float* total, LabelError* error, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(in.rows, in.classes, [&](auto team, unsigned blocks) {
    using Team = decltype(team);
    bat_rows_kernel<Team><<<blocks, kRowThreads, 0, stream>>>(in, alpha, weights, per_sample, norm, error);
  });
  weighted_mean_kernel<kRowThreads>
      <<<1, kRowThreads, 0, stream>>>(weights, per_sample, in.rows, by_weights, loss, total);
}

template <typename T>
void bat_backward_cuda(Logits<T> in, const float* weights, const RowNorm<float>* norm, const float* grad_loss,
                       const float* total, T* grad, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(in.rows, in.classes, [&](auto team, unsigned blocks) {
    using Team = decltype(team);
    bat_backward_kernel<Team><<<blocks, kRowThreads, 0, stream>>>(in, weights, norm, grad_loss, total, grad);
  });
}

template <typename T>
void soft_target_cuda(Logits<T> in, const T* soft, float scale, float* per_sample, float* loss, T* grad,
                      void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(in.rows, in.classes, [&](auto team, unsigned blocks) {
    using Team = decltype(team);
    soft_target_kernel<Team><<<blocks, kRowThreads, 0, stream>>>(in, soft, scale, per_sample, grad);
  });
  weighted_mean_kernel<kRowThreads><<<1, kRowThreads, 0, stream>>>(nullptr, per_sample, in.rows, false, loss, nullptr);
}

#define BAT_INSTANTIATE(T)                                                                                          \
  template void bat_rows_cuda(Logits<T>, float, bool, float*, float*, RowNorm<float>*, float*, float*, LabelError*, \
                              void*);                                                                               \
  template void bat_backward_cuda(Logits<T>, const float*, const RowNorm<float>*, const float*, const float*, T*,   \
                                  void*);                                                                           \
  template void soft_target_cuda(Logits<T>, const T*, float, float*, float*, T*, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
