// A team of threads (a warp, or a block for long rows) walks each row of features or of similarities.
#include "kernels/discrimination.h"
#include "kernels/reduce.cuh"

namespace bat_fast {
namespace {

template <typename Team, typename T>
__global__ void unit_rows_kernel(const T* features, int64_t n, int64_t d, float* unit, float* norm) {
  const Team team;
  const int64_t i = team_row<Team>();
  if (i >= n) return;  // the same for the whole team
  float square = 0.0f;
  for (int64_t k = team.rank(); k < d; k += Team::size) square += load(features[i * d + k]) * load(features[i * d + k]);
  const float length = maximum(sqrtf(team.reduce(square, Sum{})), 1e-12f), inverse = 1.0f / length;
  for (int64_t k = team.rank(); k < d; k += Team::size) unit[i * d + k] = load(features[i * d + k]) * inverse;
  if (team.rank() == 0) norm[i] = length;
}

template <typename Team, typename T>
__global__ void unit_backward_kernel(const T* __restrict__ features, const float* norm,
                                     const float* __restrict__ unit_grad, float scale, const float* grad_loss,
                                     int64_t n, int64_t d, T* __restrict__ grad) {
  const Team team;
  const int64_t i = team_row<Team>();
  if (i >= n) return;
  const T* f = features + i * d;
  const float *g = unit_grad + i * d, inverse = 1.0f / norm[i];
  float along = 0.0f;
  for (int64_t k = team.rank(); k < d; k += Team::size) along += load(f[k]) * inverse * g[k];
  along = team.reduce(along, Sum{});
  const float s = *grad_loss * scale * inverse;
  for (int64_t k = team.rank(); k < d; k += Team::size) {
    grad[i * d + k] = store<T>((g[k] - load(f[k]) * inverse * along) * s);
  }
}

// Leaves the number of positives in `share`.
template <typename Team>
__global__ void count_positives_kernel(const int64_t* target, int64_t n, Anchor<float>* anchors) {
  const Team team;
  const int64_t i = team_row<Team>();
  if (i >= n) return;
  float same = 0.0f;  // exact: a batch has fewer than 2^24 samples
  for (int64_t j = team.rank(); j < n; j += Team::size) same += target[j] == target[i] ? 1.0f : 0.0f;
  same = team.reduce(same, Sum{});
  if (team.rank() == 0) anchors[i].share = same - 1.0f;
}

__device__ float anchor_weight(const Anchor<float>& a, const float* weights, int64_t i) {
  return a.share > 0.0f ? (weights == nullptr ? 1.0f : weights[i]) : 0.0f;
}

__global__ void share_anchors_kernel(const float* weights, int64_t n, Anchor<float>* anchors) {
  const BlockTeam<kRowThreads> team;
  float total = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads) total += anchor_weight(anchors[i], weights, i);
  total = team.reduce(total, Sum{});
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads) {
    const float count = anchors[i].share, w = total > 0.0f ? anchor_weight(anchors[i], weights, i) / total : 0.0f;
    anchors[i] = {0.0f, w, w / maximum(count, 1.0f)};
  }
}

template <typename Team>
__global__ void anchor_rows_kernel(PairRows<float> in, Anchor<float>* anchors, float* part) {
  const Team team;
  const int64_t r = team_row<Team>();
  if (r >= in.rows) return;
  const int64_t i = in.first + r, y = in.target[i];
  const float* row = in.products + r * in.n;
  float top = -INFINITY, sum = 0.0f, pull = 0.0f, loss = 0.0f;
  for (int64_t j = team.rank(); j < in.n; j += Team::size) {
    if (in.negatives ? in.target[j] != y : j != i) top = maximum(top, in.scale * row[j]);
  }
  top = team.reduce(top, Max{});
  const float shift = top == -INFINITY ? 0.0f : top;
  for (int64_t j = team.rank(); j < in.n; j += Team::size) {
    if (in.negatives ? in.target[j] != y : j != i) sum += fast_exp(in.scale * row[j] - shift);
  }
  sum = team.reduce(sum, Sum{});
  Anchor<float> a = anchors[i];
  const float log_sum = close_anchor(a, shift, sum);
  for (int64_t j = team.rank(); j < in.n; j += Team::size) {
    if (in.target[j] != y || j == i) continue;
    const float gap = log_sum - in.scale * row[j];
    loss += in.negatives ? soft_plus(gap) : gap;
    pull += in.negatives ? sigmoid(gap) : 0.0f;
  }
  loss = team.reduce(loss, Sum{});
  pull = team.reduce(pull, Sum{});
  team.sync();  // everybody has read the anchor
  if (team.rank() == 0) {
    if (in.negatives) a.weight = a.share * pull;
    anchors[i] = a;
    part[i] = a.share > 0.0f ? a.share * loss : 0.0f;
  }
}

template <typename Team>
__global__ void pair_gradients_kernel(PairRows<float> in, const Anchor<float>* anchors) {
  const Team team;
  const int64_t r = team_row<Team>();
  if (r >= in.rows) return;
  const int64_t i = in.first + r, y = in.target[i];
  float* row = in.products + r * in.n;
  const Anchor<float> own = anchors[i];
  for (int64_t j = team.rank(); j < in.n; j += Team::size) {
    const float g = pair_gradient(in.scale * row[j], in.target[j] == y, in.negatives, own, anchors[j]);
    row[j] = j == i ? 0.0f : g;
  }
}

__global__ void sum_kernel(const float* part, int64_t n, float* sum) {
  const BlockTeam<kRowThreads> team;
  float total = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads) total += part[i];
  total = team.reduce(total, Sum{});
  if (threadIdx.x == 0) *sum = total;
}

}  // namespace

template <typename T>
void unit_rows_cuda(const T* features, int64_t n, int64_t d, float* unit, float* norm, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(n, d, [&](auto team, unsigned blocks) {
    unit_rows_kernel<decltype(team)><<<blocks, kRowThreads, 0, stream>>>(features, n, d, unit, norm);
  });
}

template <typename T>
void unit_backward_cuda(const T* features, const float* norm, const float* unit_grad, float scale,
                        const float* grad_loss, int64_t n, int64_t d, T* grad, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(n, d, [&](auto team, unsigned blocks) {
    unit_backward_kernel<decltype(team)>
        <<<blocks, kRowThreads, 0, stream>>>(features, norm, unit_grad, scale, grad_loss, n, d, grad);
  });
}

void share_anchors_cuda(const int64_t* target, const float* weights, int64_t n, Anchor<float>* anchors, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(n, n, [&](auto team, unsigned blocks) {
    count_positives_kernel<decltype(team)><<<blocks, kRowThreads, 0, stream>>>(target, n, anchors);
  });
  share_anchors_kernel<<<1, kRowThreads, 0, stream>>>(weights, n, anchors);
}

void anchor_rows_cuda(PairRows<float> in, Anchor<float>* anchors, float* part, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(in.rows, in.n, [&](auto team, unsigned blocks) {
    anchor_rows_kernel<decltype(team)><<<blocks, kRowThreads, 0, stream>>>(in, anchors, part);
  });
}

void pair_gradients_cuda(PairRows<float> in, const Anchor<float>* anchors, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  with_team(in.rows, in.n, [&](auto team, unsigned blocks) {
    pair_gradients_kernel<decltype(team)><<<blocks, kRowThreads, 0, stream>>>(in, anchors);
  });
}

void sum_cuda(const float* part, int64_t n, float* sum, void* stream) {
  sum_kernel<<<1, kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(part, n, sum);
}

#define BAT_INSTANTIATE(T)                                                                                          \
  template void unit_rows_cuda(const T*, int64_t, int64_t, float*, float*, void*);                                  \
  template void unit_backward_cuda(const T*, const float*, const float*, float, const float*, int64_t, int64_t, T*, \
                                   void*);
BAT_INSTANTIATE(float)
BAT_INSTANTIATE(half_bits)
BAT_INSTANTIATE(bfloat_bits)

}  // namespace bat_fast
