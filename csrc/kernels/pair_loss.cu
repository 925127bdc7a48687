// A team of threads (a warp, or a block for long rows) works on both rows, which it holds in registers, or reads once
// for the normalisers, and again, from the cache, for the sums. The backward pass reads them once.
#include "kernels/columns.cuh"
#include "kernels/pair_loss.h"

namespace bat_fast {
namespace {

template <bool Held, typename Team, bool kMart, typename T>
__global__ void pair_rows_kernel(Logits<T> clean, const T* __restrict__ adv, float beta, float* __restrict__ per_sample,
                                 Pair<float, kMart>* __restrict__ rows, LabelError* error) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= clean.rows) return;
  const int64_t start = row * clean.classes;
  const Columns<Held, Team, kWidest<T>> columns = {team, clean.classes};
  const Values<Held, T> z(columns, clean.data + start), z_adv(columns, adv + start);
  const int64_t y = kMart ? clean.target[row] : 0;
  const bool valid = valid_label(y, clean.classes);
  const int64_t label = valid ? y : 0;  // a row without a label is walked too: its values end as NaN
  const RowNorm<float> norm = row_norm(columns, z), norm_adv = row_norm(columns, z_adv);
  Pair<float, kMart> p = {norm, norm_adv, 0, 0, 0, 0, 0, 0, -1, beta};
  Ranked<float> other = {0.0f, -1};
  if (kMart) {
    columns.each([&](int slot, int64_t c) {
      if (c != label) other = better(other, {0.0f, -1}, z_adv(slot, c), c);
    });
    other = team.reduce(other, First{});
    p.set_classes(load(z.row[label]), other);
  }
  float kl = 0.0f, pulled = 0.0f, clean_rest = 0.0f, adv_rest = 0.0f;
  columns.each([&](int slot, int64_t c) {
    const float a = z(slot, c), b = z_adv(slot, c);
    const float prob = p.clean.probability(a), prob_adv = p.adv.probability(b);
    kl += p.kl_term(prob, p.log_ratio(a, b, prob_adv));
    pulled += p.pull(prob, prob_adv);
    clean_rest += kMart && c != label ? prob : 0.0f;
    adv_rest += kMart && c != other.column ? prob_adv : 0.0f;
  });
  p.kl = team.reduce(kl, Sum{});
  p.pulled = team.reduce(pulled, Sum{});
  if (kMart) {
    p.clean_rest = team.reduce(clean_rest, Sum{});
    p.adv_rest = team.reduce(adv_rest, Sum{});
  }
  if (team.rank() == 0) {
    rows[row] = valid ? p : Pair<float, kMart>::none();
    per_sample[row] = valid ? p.value(load(z_adv.row[label])) : NAN;
    if (!valid) report(error, row, y, clean.classes);
  }
}

template <bool Held, typename Team, bool kMart, typename T>
__global__ void pair_backward_kernel(Logits<T> clean, const T* __restrict__ adv,
                                     const Pair<float, kMart>* __restrict__ rows, float scale,
                                     const float* __restrict__ grad_loss, T* __restrict__ grad_clean,
                                     T* __restrict__ grad_adv) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= clean.rows) return;
  const int64_t start = row * clean.classes;
  const Columns<Held, Team, kWidest<T>> columns = {team, clean.classes};
  const Values<Held, T> z(columns, clean.data + start), z_adv(columns, adv + start);
  const Pair<float, kMart> p = rows[row];
  const int64_t y = kMart ? clean.target[row] : -1, t = kMart ? p.other_class(clean.classes) : -1;
  const float s = scale * *grad_loss;
  T* const to[2] = {grad_clean == nullptr ? nullptr : grad_clean + start,
                    grad_adv == nullptr ? nullptr : grad_adv + start};
  columns.template write_all<2>(to, [&](int slot, int64_t c, float (&v)[2]) {
    const float a = z(slot, c), b = z_adv(slot, c);
    const float prob = p.clean.probability(a), prob_adv = p.adv.probability(b);
    v[0] = s * p.grad_clean(prob, p.log_ratio(a, b, prob_adv), c == y);
    v[1] = s * p.grad_adv(prob, prob_adv, c == y, c == t);
  });
}

}  // namespace

template <typename T, bool kMart>
void pair_rows_cuda(Logits<T> clean, const T* adv, float beta, float* per_sample, Pair<float, kMart>* rows, float* loss,
                    LabelError* error, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  const bool holds = can_hold(clean.classes, clean.data, adv);
  with_columns(clean.rows, clean.classes, holds, [&](auto team, auto held, unsigned blocks) {
    pair_rows_kernel<held, decltype(team)>
        <<<blocks, kRowThreads, 0, stream>>>(clean, adv, beta, per_sample, rows, error);
  });
  weighted_mean_kernel<kRowThreads>
      <<<1, kRowThreads, 0, stream>>>(nullptr, per_sample, clean.rows, false, loss, nullptr);
}

template <typename T, bool kMart>
void pair_backward_cuda(Logits<T> clean, const T* adv, const Pair<float, kMart>* rows, float scale,
                        const float* grad_loss, T* grad_clean, T* grad_adv, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  const bool holds = can_hold(clean.classes, clean.data, adv, grad_clean, grad_adv);  // null is aligned
  with_columns(clean.rows, clean.classes, holds, [&](auto team, auto held, unsigned blocks) {
    pair_backward_kernel<held, decltype(team)>
        <<<blocks, kRowThreads, 0, stream>>>(clean, adv, rows, scale, grad_loss, grad_clean, grad_adv);
  });
}

#define BAT_INSTANTIATE(T, kMart)                                                                                    \
  template void pair_rows_cuda(Logits<T>, const T*, float, float*, Pair<float, kMart>*, float*, LabelError*, void*); \
  template void pair_backward_cuda(Logits<T>, const T*, const Pair<float, kMart>*, float, const float*, T*, T*, void*);
BAT_INSTANTIATE(float, false)
BAT_INSTANTIATE(float, true)
BAT_INSTANTIATE(half_bits, false)
BAT_INSTANTIATE(half_bits, true)
BAT_INSTANTIATE(bfloat_bits, false)
BAT_INSTANTIATE(bfloat_bits, true)

}  // namespace bat_fast
