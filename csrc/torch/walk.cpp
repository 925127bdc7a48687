// Torch face of walk.h, for the CPU alone.
#include "kernels/walk.h"

#include "rows.h"
#include "small.h"

namespace bat_fast {
namespace {

void network_walk_(Tensor adv, const Tensor& clean, const Tensor& y_, const std::optional<Tensor>& targets_,
                   const Tensor& plan_, const Tensor& weights_, int64_t classes, const std::string& norm, int64_t steps,
                   double eps, double lo, double hi) {
  check_search(adv, clean, y_, plan_, weights_, classes, eps, lo, hi);
  if (targets_) check_index({"targets", *targets_}, adv.size(0), classes, {"adv", adv});
  check_word("norm", norm, {"linf", "l2"});
  check_integer("steps", steps, 1, std::numeric_limits<int32_t>::max());
  const Tensor plan = packed(plan_), weights = packed(weights_), y = packed(y_);
  const auto targets = packed(targets_);
  on_cpu(adv, [&](auto type) {
    using T = decltype(type);
    const Network<T> net = network<T>(plan, weights, adv, classes);
    const Walk<T> how = {pointer<int64_t>(y),
                         pointer_or_null<int64_t>(targets),
                         norm == "l2",
                         static_cast<T>(eps),
                         static_cast<T>(lo),
                         static_cast<T>(hi),
                         steps};
    over_chunks(adv, [&](int64_t begin, int64_t end) {
      network_walk_cpu<T>(net, images<T>(adv), images<const T>(clean), how, begin, end);
    });
  });
}
BAT_REGISTER_CPU(network_walk_, network_walk_)

}  // namespace
}  // namespace bat_fast
