// A team of threads (a warp, or a block for long rows) works on both rows, which it holds in registers, or reads once
// for the normalisers, and again, from the cache, for the sums and the gradients.
#include "kernels/columns.cuh"
#include "kernels/pair_loss.h"

namespace bat_fast {
namespace {

template <bool Held, typename Team, bool kMart, typename T>
__global__ void pair_loss_kernel(Logits<T> clean, const T* __restrict__ adv, float beta, float scale,
                                 float* __restrict__ per_sample, T* __restrict__ grad_clean, T* __restrict__ grad_adv,
                                 LabelError* error) {
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
  Pair<float, kMart> p = {norm, norm_adv, beta, label, -1, 0, 0, 0, 0, 0, 0};
  if (kMart) {
    Ranked<float> other = {0.0f, -1};
    columns.each([&](int slot, int64_t c) {
      if (c != label) other = better(other, {0.0f, -1}, z_adv(slot, c), c);
    });
    other = team.reduce(other, First{});
    p.set_classes(label, other.column, load(z.row[label]), other.value);
  }
  float kl = 0.0f, pulled = 0.0f, clean_rest = 0.0f, adv_rest = 0.0f;
  columns.each([&](int slot, int64_t c) {
    const float a = z(slot, c), b = z_adv(slot, c);
    const float prob = p.clean.probability(a), prob_adv = p.adv.probability(b);
    kl += p.kl_term(prob, p.log_ratio(a, b, prob_adv));
    pulled += p.pull(prob, prob_adv);
    clean_rest += c == p.label ? 0.0f : prob;
    adv_rest += c == p.other ? 0.0f : prob_adv;
  });
  p.kl = team.reduce(kl, Sum{});
  p.pulled = team.reduce(pulled, Sum{});
  p.clean_rest = team.reduce(clean_rest, Sum{});
  p.adv_rest = team.reduce(adv_rest, Sum{});
  const float s = valid ? scale : NAN;
  columns.template write_all<2>({grad_clean + start, grad_adv + start}, [&](int slot, int64_t c, float (&v)[2]) {
    const float a = z(slot, c), b = z_adv(slot, c);
    const float prob = p.clean.probability(a), prob_adv = p.adv.probability(b);
    v[0] = s * p.grad_clean(prob, p.log_ratio(a, b, prob_adv), c == p.label);
    v[1] = s * p.grad_adv(prob, prob_adv, c == p.label, c == p.other);
  });
  if (team.rank() == 0) {
    per_sample[row] = valid ? p.value(load(z_adv.row[label])) : NAN;
    if (!valid) report(error, row, y, clean.classes);
  }
}

}  // namespace

template <typename T>
void pair_loss_cuda(Logits<T> clean, const T* adv, float beta, float scale, float* per_sample, float* loss,
                    T* grad_clean, T* grad_adv, LabelError* error, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  const bool holds = can_hold(clean.classes, clean.data, adv, grad_clean, grad_adv);
  with_columns(clean.rows, clean.classes, holds, [&](auto team, auto held, unsigned blocks) {
    using Team = decltype(team);
    const auto kernel =
        clean.target == nullptr ? pair_loss_kernel<held, Team, false, T> : pair_loss_kernel<held, Team, true, T>;
    kernel<<<blocks, kRowThreads, 0, stream>>>(clean, adv, beta, scale, per_sample, grad_clean, grad_adv, error);
  });
  weighted_mean_kernel<kRowThreads>
      <<<1, kRowThreads, 0, stream>>>(nullptr, per_sample, clean.rows, false, loss, nullptr);
}

#define BAT_INSTANTIATE(T) \
  template void pair_loss_cuda(Logits<T>, const T*, float, float, float*, float*, T*, T*, LabelError*, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
