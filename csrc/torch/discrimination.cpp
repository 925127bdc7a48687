// Torch face of discrimination.h: torch's matrix products, and our passes between them.
#include "kernels/discrimination.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "products.h"

namespace bat_fast {
namespace {

constexpr int64_t kWholeMatrix = 4096;  // samples up to which the similarities are kept between the two passes
constexpr int64_t kTileRows = 1024;     // of a larger batch, whose similarities are computed twice instead

// The gradient of the unit features lacks its factor 1 / tau.
std::tuple<Tensor, Tensor, Tensor> discrimination_loss(const Tensor& features_, const Tensor& target_,
                                                       double temperature, const std::optional<Tensor>& weights_,
                                                       const std::string& denominator) {
  const Named given{"features", features_};
  check_dims(given, 2, "[N, D]");
  check_floating(given);
  const int64_t n = features_.size(0), d = features_.size(1);
  check_integer("the number of features", n, 0, std::numeric_limits<int32_t>::max());
  check_ids({"target", target_}, n, given);
  if (weights_) {
    check_sizes({"weights", *weights_}, {n});
    check_type({"weights", *weights_}, accumulator(features_));
    check_beside({"weights", *weights_}, given);
  }
  check_number("temperature", temperature, std::numeric_limits<double>::min());
  check_word("denominator", denominator, {"all", "negatives"});
  const Tensor features = packed(features_), target = packed(target_);
  const auto weights = packed(weights_);
  const ScalarType type = accumulator(features);
  Tensor unit = new_tensor(features, {n, d}, type), norm = new_tensor(features, {n}, type);
  Tensor anchors = new_tensor(features, {n, 3}, type), part = new_tensor(features, {n}, type);  // Anchor: 3 numbers
  Tensor loss = new_tensor(features, {}, type), unit_grad = new_tensor(features, {n, d}, type);
  const int64_t height = n <= kWholeMatrix ? n : kTileRows;
  Tensor similarity = new_tensor(features, {height, n}, type);
  const auto pairs = [&](auto kind, int64_t first, int64_t count) {
    using T = decltype(kind);
    return PairRows<T>{pointer<T>(similarity),          pointer<int64_t>(target),  n, first, count,
                       static_cast<T>(1 / temperature), denominator == "negatives"};
  };
  const auto tiles = [&](auto visit) {
    for (int64_t first = 0; first < n; first += height) visit(first, std::min(height, n - first));
  };
  on_device(
      features,
      [&](auto kind) {
        using T = decltype(kind);
        auto* const anchor = pointer<Anchor<T>>(anchors);
        const auto parallel = [](int64_t count, int64_t width, auto f) {
          torch::stable::parallel_for(0, count, row_grain(width), f);
        };
        parallel(n, d, [&](int64_t begin, int64_t end) {
          unit_rows_cpu(pointer<T>(features), d, pointer<T>(unit), pointer<T>(norm), begin, end);
        });
        const Classes classes(pointer<int64_t>(target), n);
        share_anchors_cpu(classes, pointer_or_null<T>(weights), n, anchor);
        tiles([&](int64_t first, int64_t rows_here) {
          products(unit, first, rows_here, similarity);
          parallel(rows_here, 4 * n, [&](int64_t begin, int64_t end) {
            anchor_rows_cpu(pairs(kind, first, rows_here), classes, anchor, pointer<T>(part), begin, end);
          });
        });
        *pointer<T>(loss) = static_cast<T>(std::accumulate(pointer<T>(part), pointer<T>(part) + n, 0.0));
        tiles([&](int64_t first, int64_t rows_here) {
          if (height < n) products(unit, first, rows_here, similarity);
          parallel(rows_here, 4 * n, [&](int64_t begin, int64_t end) {
            pair_gradients_cpu(pairs(kind, first, rows_here), classes, anchor, begin, end);
          });
          Tensor out = rows(unit_grad, first, rows_here);
          multiply(rows(similarity, 0, rows_here), unit, out);
        });
      },
      [&](auto kind, void* stream) {
        using T = decltype(kind);
        auto* const anchor = pointer<Anchor<float>>(anchors);
        unit_rows_cuda(pointer<T>(features), n, d, pointer<float>(unit), pointer<float>(norm), stream);
        share_anchors_cuda(pointer<int64_t>(target), pointer_or_null<float>(weights), n, anchor, stream);
        tiles([&](int64_t first, int64_t rows_here) {
          products(unit, first, rows_here, similarity);
          anchor_rows_cuda(pairs(float{}, first, rows_here), anchor, pointer<float>(part), stream);
        });
        sum_cuda(pointer<float>(part), n, pointer<float>(loss), stream);
        tiles([&](int64_t first, int64_t rows_here) {
          if (height < n) products(unit, first, rows_here, similarity);
          pair_gradients_cuda(pairs(float{}, first, rows_here), anchor, stream);
          Tensor out = rows(unit_grad, first, rows_here);
          multiply(rows(similarity, 0, rows_here), unit, out);
        });
      });
  return {loss, norm, unit_grad};
}
BAT_REGISTER(discrimination_loss, discrimination_loss)

Tensor discrimination_loss_backward(const Tensor& grad_loss, const Tensor& features_, const Tensor& norm_,
                                    const Tensor& unit_grad_, double temperature) {
  const Named given{"features", features_};
  check_dims(given, 2, "[N, D]");
  check_floating(given);
  const int64_t n = features_.size(0), d = features_.size(1);
  check_sizes({"norm", norm_}, {n});
  check_sizes({"unit_grad", unit_grad_}, {n, d});
  check_sizes({"grad_loss", grad_loss}, {});
  for (const Named& t : {Named{"norm", norm_}, {"unit_grad", unit_grad_}, {"grad_loss", grad_loss}}) {
    check_type(t, accumulator(features_));
    check_beside(t, given);
  }
  check_number("temperature", temperature, std::numeric_limits<double>::min());
  const Tensor features = packed(features_), norm = packed(norm_), unit_grad = packed(unit_grad_);
  Tensor grad = new_matrix(features);
  on_device(
      features,
      [&](auto kind) {
        using T = decltype(kind);
        torch::stable::parallel_for(0, n, row_grain(d), [&](int64_t begin, int64_t end) {
          unit_backward_cpu(pointer<T>(features), pointer<T>(norm), pointer<T>(unit_grad),
                            static_cast<T>(1 / temperature), *pointer<T>(grad_loss), d, pointer<T>(grad), begin, end);
        });
      },
      [&](auto kind, void* stream) {
        using T = decltype(kind);
        unit_backward_cuda(pointer<T>(features), pointer<float>(norm), pointer<float>(unit_grad),
                           static_cast<float>(1 / temperature), pointer<float>(grad_loss), n, d, pointer<T>(grad),
                           stream);
      });
  return grad;
}
BAT_REGISTER(discrimination_loss_backward, discrimination_loss_backward)

}  // namespace
}  // namespace bat_fast
