// A team of threads (a warp, or a block for long rows) works on each row, which it holds in registers, or reads again,
// from the cache, as often as the loss needs it.
#include "kernels/attack_grad.h"
#include "kernels/columns.cuh"

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

// Plain is cross-entropy alone, for which no other row is held.
template <bool Held, bool Plain, typename Team, typename T>
__device__ float softmax_row(const Team& team, const Row<T>& row, const Attack<T>& a) {
  const bool is_kl = !Plain && a.loss == RowLoss::kKl, with_soft = !Plain && row.soft != nullptr;
  const Columns<Held, Team, kWidest<T>> columns = {team, row.classes};
  const Values<Held, T> z(columns, row.z);
  const Values<Held && !Plain, T> reference(columns, Plain ? nullptr : row.reference);
  const Values<Held && !Plain, T> soft(columns, Plain ? nullptr : row.soft);
  const RowNorm<float> norm = row_norm(columns, z);
  float mean_difference = 0.0f, square = 0.0f, kl = 0.0f;
  if (with_soft) {
    columns.each([&](int slot, int64_t c) {
      const float p = norm.probability(z(slot, c)), d = p - soft(slot, c);
      mean_difference += p * d;
      square += d * d;
    });
    mean_difference = team.reduce(mean_difference, Sum{});
    square = team.reduce(square, Sum{});
  }
  RowNorm<float> ref = norm;
  if constexpr (!Plain) {
    if (is_kl) ref = row_norm(columns, reference);
  }
  const float weight = a.soft_weight / static_cast<float>(row.classes), sign = a.targeted ? -1.0f : 1.0f;
  columns.write(row.grad, [&](int slot, int64_t c) {
    const float v = z(slot, c), p = norm.probability(v);
    float q = c == row.target ? 1.0f : 0.0f;
    if (is_kl) {
      const float log_q = ref.log_probability(reference(slot, c));
      q = fast_exp(log_q);
      kl += kl_term(q, log_q, norm.log_probability(v));
    }
    const float pull = with_soft ? soft_grad(p, soft(slot, c), mean_difference, weight) : 0.0f;
    return sign * (p - q) + pull;
  });
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

enum class How { ranked, softmax, cross_entropy };

template <How kHow, bool Held, typename Team, typename T>
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
  float value;
  if constexpr (kHow == How::ranked) {
    value = ranked_row(team, row, a);
  } else {
    value = softmax_row<Held, kHow == How::cross_entropy>(team, row, a);
  }
  if (team.rank() == 0) per_sample[n] = value;
}

}  // namespace

template <typename T>
void attack_grad_cuda(Logits<T> in, Attack<T> a, T* grad, float* per_sample, LabelError* error, void* stream) {
  const bool ranked = a.loss == RowLoss::kMargin || a.loss == RowLoss::kDlr;
  const bool plain = a.loss == RowLoss::kCrossEntropy && a.soft == nullptr;
  const bool holds = !ranked && can_hold(in.classes, in.data, a.reference, a.soft, grad);  // null is aligned
  with_columns(in.rows, in.classes, holds, [&](auto team, auto held, unsigned blocks) {
    using Team = decltype(team);
    const auto kernel = [&] {
      if constexpr (held) {
        return plain ? attack_grad_kernel<How::cross_entropy, held, Team, T>
                     : attack_grad_kernel<How::softmax, held, Team, T>;
      } else {
        return ranked ? attack_grad_kernel<How::ranked, held, Team, T>
                      : attack_grad_kernel<How::softmax, held, Team, T>;
      }
    }();
    kernel<<<blocks, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(in, a, grad, per_sample, error);
  });
}

#define BAT_INSTANTIATE(T) template void attack_grad_cuda(Logits<T>, Attack<T>, T*, float*, LabelError*, void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
