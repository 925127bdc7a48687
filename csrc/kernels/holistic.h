// Worst-case weights of holistic robust training, exact and without a sort; CPU and CUDA differ in Team::fold alone.
#pragma once

#include "kernels/portable.h"

namespace bat_fast {

// Atoms of mass q_k at gaps d_k = (largest loss - loss_k) / range in [0, 1] are tilted to w_k ~ q_k / (t + d_k), where
// t > 0 is the root of  K(t) = E log(t + d) + log E 1/(t + d) = r.
struct Holistic {
  double alpha, r;
  bool hr;
};

struct Fold {  // what a reduction over the samples returns, and one sample contributes
  double sum, count, high, low;
  Fold() = default;  // shared memory has no initialisers
  BAT_HD Fold(double sum, double count = 0, double high = -INFINITY, double low = INFINITY)
      : sum(sum), count(count), high(high), low(low) {}
};

// Samples below gap `at` keep their mass, those at it the fraction `part`; the rest of the mass goes to the worst atom.
struct Cut {
  double at, part;
  BAT_HD double keep(double gap) const { return gap < at ? 1.0 : gap == at ? part : 0.0; }
};

struct Optimum {  // scale * keep(d) / (t + slope d) for a sample, `worst` for the extra atom
  Cut cut;
  double t, slope, scale, worst;
  BAT_HD double weight(double gap) const { return scale * cut.keep(gap) / (t + slope * gap); }
};

struct Spread {  // the largest loss, its distance from the smallest (NaN: bad losses), its first index and its count
  double top, range, first, tops;
};

// A sample's part in K, around the mean gap m: with y = (d - m) / (t + m), whose mean is 0, and z = 1 + y,
// K = E[log z - y] + log(1 + E[y^2 / z]). Both are of second order, so that a tiny radius loses no digits.
struct Divergence {
  double t, mean;
  BAT_HD Fold at(double gap, double q) const {
    const double s = t + mean, y = (gap - mean) / s;
    return {q * log_minus((t + gap) / s, y), q * (y * y * (s / (t + gap)))};
  }
};

template <typename Team>  // reads the losses into team.gap
BAT_HD Spread measure(const Team& team) {
  const Fold f = team.fold([=](int64_t i) BAT_INLINE {
    const double loss = team.loss(i);
    return Fold{loss - loss, 0, loss, loss};  // NaN if any is not finite
  });
  const double top = f.high, range = top - f.low;
  const Fold g = team.fold([=](int64_t i) BAT_INLINE {
    const double gap = top - team.loss(i);
    team.gap[i] = range > 0 ? gap / range : 0.0;
    return Fold{0, gap == 0 ? 1.0 : 0.0, gap == 0 ? -static_cast<double>(i) : -INFINITY};
  });
  return {top, f.sum == 0 && range < INFINITY ? range : NAN, -g.high, g.count};
}

// Where mass alpha has been moved, largest gaps first, when a sample has mass m_i ~ 1 / lift(d), lift(d) = t + slope d,
// up to the cut and 1 / lift(cut) beyond: where  alpha lift(d) sum_{d_i < d} m_i - (1 - alpha) #{d_i >= d}  changes
// sign.
template <typename Team>
BAT_HD Cut find_cut(const Team& team, double alpha, double guess, double t, double slope) {
  const double n = static_cast<double>(team.n);
  double low = 0, high = 1, x = guess;
  Fold below = {0, 0, 0}, through = {0, n};
  for (int round = 0; low < high; ++round) {
    x = x < low ? low : x < high ? x : neighbour(high, -1);
    const Fold f = team.fold([=](int64_t i) BAT_INLINE {
      const double gap = team.gap[i];
      const bool in = gap <= x;
      return Fold{in ? 1 / (t + slope * gap) : 0.0, in ? 1.0 : 0.0, in ? gap : -INFINITY, in ? INFINITY : gap};
    });
    const bool reached = alpha * (t + slope * f.high) * f.sum >= (1 - alpha) * (n - f.count);
    (reached ? through : below) = f;
    (reached ? high : low) = reached ? f.high : f.low;
    // A guess is often right: look next to it before halving.
    x = round > 0 ? 0.5 * (low + high) : reached ? neighbour(high, -1) : low;
  }
  const double rest = (1 - alpha) * (n - below.count), excess = alpha * (t + slope * high) * below.sum - rest;
  if (excess >= 0) return {maximum(rest / (alpha * below.sum) - t, neighbour(below.high, 1)), 0};
  return {high, minimum(-excess / (through.count - below.count), 1.0)};
}

// The root of K(t) = r, K decreasing: a secant in log t on log(exp(K) - 1), whose slope stays near -1 to -2, inside a
// bracket. 3 to 8 evaluations of K for radii from 1e-12 to 50.
template <typename Kl>
BAT_HD double tilt(double r, double range, double mean, double variance, Kl kl) {
  const double target = expm1(r), half = variance / (2 * target);
  double low = log(range) - 600;
  double high = log(range / (2 * target * (1 + sqrt(1 + 1 / target))));  // Kantorovich's inequality
  double at = log(2 * half / (mean + sqrt(mean * mean + 4 * half))), old_at = 0, old_error = 0;
  if (!(at > low && at < high)) at = high;
  for (int round = 0; round < 100; ++round) {
    const double error = log(expm1(kl(exp(at))) / target);
    (error > 0 ? low : high) = at;
    const double slope = round == 0 ? -1.5 : (error - old_error) / (at - old_at), next = at - error / slope;
    old_at = at;
    old_error = error;
    at = slope < 0 && next >= low && next <= high ? next : 0.5 * (low + high);
    if (fabs(at - old_at) < 1e-8) break;
  }
  return exp(at);
}

template <typename Team>
BAT_HD Optimum solve(const Team& team, Holistic problem, Spread spread) {
  const double n = static_cast<double>(team.n), alpha = problem.alpha, r = problem.r < 500 ? problem.r : 500;
  const double lower = 1 - spread.tops / n;  // the fraction of losses below the largest
  const bool hr = problem.hr && alpha > 0;   // at alpha = 0 both forms are the same
  if (alpha >= 1) return {{0, 0}, 1, 0, 0, 1};
  if (hr && (alpha >= lower || r >= lower * log(lower / alpha) + (1 - lower) * log((1 - lower) / (1 - alpha))))
    return {{0, 1}, 1, 0, (1 - alpha) / spread.tops, alpha};  // only the largest losses keep mass
  Cut cut = find_cut(team, alpha, 1 - alpha, 1, 0);
  if (cut.at == 0 || r < 1e-30) return {cut, 1, 0, 1 / n, alpha};  // without a radius both forms are the same, too
  // HD drops what lies beyond the cut, HR clips the gaps at it.
  const auto atoms = [&](auto f) BAT_INLINE {
    const Cut c = cut;
    return team.fold([=](int64_t i) BAT_INLINE {
      const double gap = team.gap[i];
      return f(hr && gap > c.at ? c.at : gap, hr ? 1.0 : c.keep(gap));
    });
  };
  const auto moments = [&]() BAT_INLINE { return atoms([](double d, double q) { return Fold{q * d, q * d * d}; }); };
  const Fold start = moments();
  const double mean = start.sum / n, extra = hr ? 0 : alpha;
  const double t = tilt(r, hr ? 1 : cut.at, mean, start.count / n - mean * mean, [&](double tried) BAT_INLINE {
    if (hr) cut = find_cut(team, alpha, cut.at, tried, 1);
    const Divergence at = {tried, hr ? moments().sum / n : mean};
    const Fold f = atoms([=](double gap, double q) BAT_INLINE { return at.at(gap, q); }), worst = at.at(0, extra);
    return (f.sum / n + worst.sum) + log1p(f.count / n + worst.count);
  });
  if (hr) cut = find_cut(team, alpha, cut.at, t, 1);
  const Optimum best = {cut, t, 1, 1, n * extra / t};
  const double mass = team.fold([=](int64_t i) BAT_INLINE { return Fold{best.weight(team.gap[i])}; }).sum;
  const double scale = (hr ? 1 - alpha : 1) / (mass + best.worst);
  return {cut, t, 1, scale, hr ? alpha : best.worst * scale};
}

// Writes the weights [n + 1] and the gradient [n], and returns the loss.
template <typename Team>
BAT_HD double holistic(const Team& team, Holistic problem) {
  const Spread spread = measure(team);
  const Optimum best = spread.range >= 0 ? solve(team, problem, spread) : Optimum{{1, 1}, NAN, NAN, NAN, NAN};
  const Fold f = team.fold([=](int64_t i) BAT_INLINE {
    const double gap = team.gap[i], weight = best.weight(gap);
    team.write(i, weight, static_cast<double>(i) == spread.first ? weight + best.worst : weight);
    return Fold{weight * gap};
  });
  if (team.leads()) team.weights[team.n] = best.worst;
  return spread.top - spread.range * f.sum;
}

// The arrays of a problem: losses and grad [n], weights [n + 1], and scratch for the gaps [n].
template <typename T>
struct Samples {
  const T* losses;
  int64_t n;
  double* gap;
  compute_t<T>* weights;
  T* grad;
  BAT_HD double loss(int64_t i) const { return load(losses[i]); }
  BAT_HD void write(int64_t i, double weight, double slope) const {
    weights[i] = static_cast<compute_t<T>>(weight);
    grad[i] = store<T>(static_cast<compute_t<T>>(slope));
  }
};

template <typename T>
struct Loop : Samples<T> {
  BAT_HD bool leads() const { return true; }
  template <typename F>
  BAT_HD Fold fold(F f) const {
    double sum = 0, count = 0, high = -INFINITY, low = INFINITY;
#pragma omp simd reduction(+ : sum, count) reduction(max : high) reduction(min : low)
    for (int64_t i = 0; i < this->n; ++i) {
      const Fold one = f(i);
      sum += one.sum;
      count += one.count;
      high = one.high > high ? one.high : high;
      low = one.low < low ? one.low : low;
    }
    return {sum, count, high, low};
  }
};

template <typename T>
BAT_CLONES void holistic_cpu(Samples<T> samples, Holistic problem, T* loss) {
  *loss = static_cast<T>(holistic(Loop<T>{samples}, problem));
}

// CUDA launcher, in holistic.cu; `stream` is a cudaStream_t.
template <typename T>
void holistic_cuda(Samples<T> samples, Holistic problem, float* loss, void* stream);

}  // namespace bat_fast
