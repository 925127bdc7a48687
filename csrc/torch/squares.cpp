// Torch face of squares.h, for the CPU alone.
#include "kernels/squares.h"

#include "rows.h"
#include "small.h"

namespace bat_fast {
namespace {

void network_squares_(Tensor adv, const Tensor& clean, const Tensor& y_, const Tensor& numbers_,
                      const std::optional<Tensor>& bumps_, const Tensor& plan_, const Tensor& weights_, int64_t classes,
                      int64_t side, double eps, double lo, double hi) {
  check_search(adv, clean, y_, plan_, weights_, classes, eps, lo, hi);
  check_integer("side", side, 1, std::min(adv.size(2), adv.size(3)));
  check_dims({"numbers", numbers_}, 3, "[N, queries, 2 + C]");
  check_sizes({"numbers", numbers_}, {adv.size(0), numbers_.size(1), (bumps_ ? 5 : 2) + adv.size(1)});
  check_type({"numbers", numbers_}, ScalarType::Float);
  check_beside({"numbers", numbers_}, {"adv", adv});
  check_apart({"adv", adv}, {"numbers", numbers_}, false);
  if (bumps_) {
    check_dims({"bumps", *bumps_}, 3, "[2, side, side]");
    check_sizes({"bumps", *bumps_}, {2, side, side});
    check_type({"bumps", *bumps_}, adv.scalar_type());
    check_beside({"bumps", *bumps_}, {"adv", adv});
    check_apart({"adv", adv}, {"bumps", *bumps_}, false);
  }
  const Tensor plan = packed(plan_), weights = packed(weights_), y = packed(y_), numbers = packed(numbers_);
  const auto bumps = packed(bumps_);
  on_cpu(adv, [&](auto type) {
    using T = decltype(type);
    const Network<T> net = network<T>(plan, weights, adv, classes);
    const Squares<T> how = {
        pointer<int64_t>(y), pointer<float>(numbers), pointer_or_null<T>(bumps), numbers.size(1), side,
        static_cast<T>(eps), static_cast<T>(lo),      static_cast<T>(hi)};
    over_chunks(adv, [&](int64_t begin, int64_t end) {
      network_squares_cpu<T>(net, images<T>(adv), images<const T>(clean), how, begin, end);
    });
  });
}
BAT_REGISTER_CPU(network_squares_, network_squares_)

}  // namespace
}  // namespace bat_fast
