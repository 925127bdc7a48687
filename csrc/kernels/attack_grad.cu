// A team of threads (a warp, or a block for long rows) walks each row, a few times where the loss needs it: all passes
// but the first are served by the cache.
#include "kernels/attack_grad.h"
#include "kernels/reduce.cuh"

namespace bat_fast {
namespace {

template <typename T>
struct Row {
  const T *z, *reference, *soft;
  T* grad;
  int64_t classes, target, label;
};

template <typename T>
__device__ const T* at(const T* batch, int64_t start) {
  return batch == nullptr ? nullptr : batch + start;
}

template <typename Team, typename T>
__device__ float softmax_row(const Team& team, const Row<T>& row, const Attack<T>& a) {
  const RowNorm<float> norm = team_norm(team, row.z, row.classes);
  float mean_difference = 0.0f, square = 0.0f, kl = 0.0f;
  if (row.soft != nullptr) {
    for (int64_t c = team.rank(); c < row.classes; c += Team::size) {
      const float p = norm.probability(load(row.z[c])), d = p - load(row.soft[c]);
      mean_difference += p * d;
      square += d * d;
    }
    mean_difference = team.reduce(mean_difference, Sum{});
    square = team.reduce(square, Sum{});
  }
  const bool is_kl = a.loss == RowLoss::kKl;
  const RowNorm<float> ref = is_kl ? team_norm(team, row.reference, row.classes) : norm;
  const float weight = a.soft_weight / static_cast<float>(row.classes), sign = a.targeted ? -1.0f : 1.0f;
  for (int64_t c = team.rank(); c < row.classes; c += Team::size) {
    const float z = load(row.z[c]), p = norm.probability(z);
    float q = c == row.target ? 1.0f : 0.0f;
    if (is_kl) {
      const float log_q = ref.log_probability(load(row.reference[c]));
      q = fast_exp(log_q);
      kl += kl_term(q, log_q, norm.log_probability(z));
    }
    const float pull = row.soft == nullptr ? 0.0f : soft_grad(p, load(row.soft[c]), mean_difference, weight);
    row.grad[c] = store<T>(sign * (p - q) + pull);
  }
  const float value = is_kl ? team.reduce(kl, Sum{}) : sign * norm.cross_entropy(load(row.z[row.target]));
  return value + weight * square;
}

template <typename Team, typename T>
__device__ float ranked_row(const Team& team, const Row<T>& row, const Attack<T>& a) {
  Ranked<float> order[4], last = {0.0f, -1};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    order[k] = {0.0f, -1};
    if (k > 0 && last.column < 0) continue;  // fewer columns than that; the same for the whole team
    for (int64_t c = team.rank(); c < row.classes; c += Team::size) {
      order[k] = better(order[k], last, load(row.z[c]), c);
    }
    order[k] = last = team.reduce(order[k], First{});
  }
  const Ratio<float> r =
      margin_or_dlr(order, a.loss, a.targeted, row.target, load(row.z[row.target]), row.label, load(row.z[row.label]));
  const float poison = order[0].value != order[0].value ? NAN : 0.0f;
  for (int64_t c = team.rank(); c < row.classes; c += Team::size) row.grad[c] = store<T>(r.grad(c) + poison);
  return r.value;
}

template <typename Team, typename T>
__global__ void attack_grad_kernel(Logits<T> in, Attack<T> a, T* grad, float* per_sample, LabelError* error) {
  const Team team;
  const int64_t n = team_row<Team>();
  if (n >= in.rows) return;  // the same for the whole team
  const int64_t start = n * in.classes, y = in.target[n], label = a.label == nullptr ? y : a.label[n];
  const bool valid = valid_label(y, in.classes) && valid_label(label, in.classes);
  if (!valid) {
    for (int64_t c = team.rank(); c < in.classes; c += Team::size) grad[start + c] = store<T>(NAN);
    if (team.rank() == 0) {
      per_sample[n] = NAN;
      report(error, n, valid_label(y, in.classes) ? label : y, in.classes);
    }
    return;
  }
  const Row<T> row = {in.data + start, at(a.reference, start), at(a.soft, start), grad + start, in.classes, y, label};
  const bool ranked = a.loss == RowLoss::kMargin || a.loss == RowLoss::kDlr;
  const float value = ranked ? ranked_row(team, row, a) : softmax_row(team, row, a);
  if (team.rank() == 0) per_sample[n] = value;
}

}  // namespace

template <typename T>
void attack_grad_cuda(Logits<T> in, Attack<T> a, T* grad, float* per_sample, LabelError* error, void* stream) {
  with_team(in.rows, in.classes, [&](auto team, unsigned blocks) {
    attack_grad_kernel<decltype(team)>
        <<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(in, a, grad, per_sample, error);
  });
}

#define BAT_INSTANTIATE(T) template void attack_grad_cuda(Logits<T>, Attack<T>, T*, float*, LabelError*, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
