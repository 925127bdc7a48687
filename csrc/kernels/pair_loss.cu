// A team of threads (a warp, or a block for long rows) walks both rows: one pass each for the normalisers, then, served
// by the cache, the sums and the gradients.
#include "kernels/pair_loss.h"
#include "kernels/reduce.cuh"

namespace bat_fast {
namespace {

template <typename Team, typename T>
__global__ void pair_loss_kernel(Logits<T> clean, const T* adv, float beta, float scale, float* per_sample,
                                 T* grad_clean, T* grad_adv, LabelError* error) {
  const Team team;
  const int64_t row = team_row<Team>();
  if (row >= clean.rows) return;
  const int64_t start = row * clean.classes;
  const T *z = clean.data + start, *z_adv = adv + start;
  const bool mart = clean.target != nullptr;
  const int64_t y = mart ? clean.target[row] : 0;
  const bool valid = valid_label(y, clean.classes);
  const int64_t label = valid ? y : 0;  // a row without a label is walked too: its values end as NaN
  Pair<float> p = {
      team_norm(team, z, clean.classes), team_norm(team, z_adv, clean.classes), mart, beta, 0, -1, 0, 0, 0, 0, 0, 0};
  if (mart) {
    Ranked<float> other = {0.0f, -1};
    for (int64_t c = team.rank(); c < clean.classes; c += Team::size) {
      if (c != label) other = better(other, {0.0f, -1}, load(z_adv[c]), c);
    }
    other = team.reduce(other, First{});
    p.set_classes(label, other.column, load(z[label]), other.value);
  }
  float kl = 0.0f, pulled = 0.0f, clean_rest = 0.0f, adv_rest = 0.0f;
  for (int64_t c = team.rank(); c < clean.classes; c += Team::size) {
    const float a = load(z[c]), b = load(z_adv[c]);
    kl += p.kl_term(a, b);
    pulled += p.pull(a, b);
    clean_rest += c == p.label ? 0.0f : p.clean.probability(a);
    adv_rest += c == p.other ? 0.0f : p.adv.probability(b);
  }
  p.kl = team.reduce(kl, Sum{});
  p.pulled = team.reduce(pulled, Sum{});
  p.clean_rest = team.reduce(clean_rest, Sum{});
  p.adv_rest = team.reduce(adv_rest, Sum{});
  const float s = valid ? scale : NAN;
  for (int64_t c = team.rank(); c < clean.classes; c += Team::size) {
    const float a = load(z[c]), b = load(z_adv[c]);
    grad_adv[start + c] = store<T>(s * p.grad_adv(c, a, b));
    grad_clean[start + c] = store<T>(s * p.grad_clean(c, a, b));
  }
  if (team.rank() == 0) {
    per_sample[row] = valid ? p.value(load(z_adv[label])) : NAN;
    if (!valid) report(error, row, y, clean.classes);
  }
}

}  // namespace

template <typename T>
void pair_loss_cuda(Logits<T> clean, const T* adv, float beta, float scale, float* per_sample, float* loss,
                    T* grad_clean, T* grad_adv, LabelError* error, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(clean.rows, clean.classes, [&](auto team, unsigned blocks) {
    using Team = decltype(team);
    pair_loss_kernel<Team>
        <<<blocks, kRowThreads, 0, stream>>>(clean, adv, beta, scale, per_sample, grad_clean, grad_adv, error);
  });
  weighted_mean_kernel<kRowThreads><<<1, kRowThreads, 0, stream>>>(nullptr, per_sample, clean.rows, false, loss);
}

#define BAT_INSTANTIATE(T) \
  template void pair_loss_cuda(Logits<T>, const T*, float, float, float*, float*, T*, T*, LabelError*, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
