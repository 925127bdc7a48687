// A team of threads (a warp, or a block for long rows) works on each row, which it holds in registers, or reads once
// for the maxima and the sum of exponentials, and again, from the cache, for the sums and gradients.
#include "kernels/columns.cuh"
#include "kernels/row_loss.h"

namespace bat_fast {
namespace {

// The value that a column contributes to the three maxima of RowMaxima.
__device__ void add_maxima(RowMaxima<float>& m, float z, int64_t column, int64_t label) {
  if (column < label) m.before = maximum(m.before, z);
  if (column == label) m.label = z;
  if (column > label) m.after = maximum(m.after, z);
}

template <bool Held, typename Team, typename T>
__global__ void bat_rows_kernel(Logits<T> in, float alpha, float* weights, float* per_sample, RowNorm<float>* norm,
                                LabelError* error) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;  // the same for the whole team
  const Columns<Held, Team, kWidest<T>> columns = {team, in.classes};
  const Values<Held, T> z(columns, in.data + row * in.classes);
  const int64_t y = in.target[row];
  const bool valid = valid_label(y, in.classes);
  RowMaxima<float> m = {-INFINITY, -INFINITY, -INFINITY};
  OnlineSum s;
  columns.each([&](int slot, int64_t c) {
    const float v = z(slot, c);
    if constexpr (!Held) s.add(v);
    add_maxima(m, v, c, y);
  });
  const RowNorm<float> n = Held ? row_norm(columns, z) : s.norm(team);
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

template <bool Held, typename Team, typename T>
__global__ void bat_backward_kernel(Logits<T> in, const float* __restrict__ weights,
                                    const RowNorm<float>* __restrict__ norm, const float* __restrict__ grad_loss,
                                    const float* __restrict__ total, T* __restrict__ grad) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;
  const Columns<Held, Team, kWidest<T>> columns = {team, in.classes};
  const Values<Held, T> z(columns, in.data + row * in.classes);
  const int64_t y = in.target[row];
  const float s = *grad_loss / *total * weights[row];
  const RowNorm<float> n = norm[row];
  columns.write(grad + row * in.classes, [&](int slot, int64_t c) {
    const float p = s * n.probability(z(slot, c));
    return c == y ? p - s : p;
  });
}

template <bool Held, typename Team, typename T>
__global__ void soft_target_kernel(Logits<T> in, const T* __restrict__ soft, float scale,
                                   float* __restrict__ per_sample, T* __restrict__ grad) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= in.rows) return;
  const int64_t start = row * in.classes;
  const Columns<Held, Team, kWidest<T>> columns = {team, in.classes};
  const Values<Held, T> z(columns, in.data + start), t(columns, soft + start);
  const RowNorm<float> norm = row_norm(columns, z);
  float mean_difference = 0.0f, square = 0.0f;
  columns.each([&](int slot, int64_t c) {
    const float p = norm.probability(z(slot, c)), d = p - t(slot, c);
    mean_difference += p * d;
    square += d * d;
  });
  mean_difference = team.reduce(mean_difference, Sum{});
  square = team.reduce(square, Sum{});
  const float share = 1.0f / static_cast<float>(in.classes);
  columns.write(grad + start, [&](int slot, int64_t c) {
    return soft_grad(norm.probability(z(slot, c)), t(slot, c), mean_difference, scale * share);
  });
  if (team.rank() == 0) per_sample[row] = square * share;
}

}  // namespace

template <typename T>
void bat_rows_cuda(Logits<T> in, float alpha, bool by_weights, float* weights, float* per_sample, RowNorm<float>* norm,
                   float* loss, float* total, LabelError* error, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_columns(in.rows, in.classes, can_hold(in.classes, in.data), [&](auto team, auto held, unsigned blocks) {
    using Team = decltype(team);
    bat_rows_kernel<held, Team><<<blocks, kRowThreads, 0, stream>>>(in, alpha, weights, per_sample, norm, error);
  });
  weighted_mean_kernel<kRowThreads>
      <<<1, kRowThreads, 0, stream>>>(weights, per_sample, in.rows, by_weights, loss, total);
}

template <typename T>
void bat_backward_cuda(Logits<T> in, const float* weights, const RowNorm<float>* norm, const float* grad_loss,
                       const float* total, T* grad, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_columns(in.rows, in.classes, can_hold(in.classes, in.data, grad), [&](auto team, auto held, unsigned blocks) {
    using Team = decltype(team);
    bat_backward_kernel<held, Team><<<blocks, kRowThreads, 0, stream>>>(in, weights, norm, grad_loss, total, grad);
  });
}

template <typename T>
void soft_target_cuda(Logits<T> in, const T* soft, float scale, float* per_sample, float* loss, T* grad,
                      void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  const bool holds = can_hold(in.classes, in.data, soft, grad);
  with_columns(in.rows, in.classes, holds, [&](auto team, auto held, unsigned blocks) {
    using Team = decltype(team);
    soft_target_kernel<held, Team><<<blocks, kRowThreads, 0, stream>>>(in, soft, scale, per_sample, grad);
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
