// What the bindings of affine.h share: channels of a tensor, types, constants.
#pragma once

#include <utility>

#include "bind.h"
#include "kernels/affine.h"

namespace bat_fast {

// In a dense tensor, whatever the order of its dimensions, the channel is (i / stride) % channels.
inline Channels channels_of(const Tensor& t) {
  const bool one = t.dim() < 2 || t.size(1) == 1;
  return one ? Channels{1, t.numel()} : Channels{t.size(1), t.stride(1)};
}

constexpr Types<float, double, half_bits, bfloat_bits> kAffineTypes;

// A constant per channel of `of`, in the type that it is computed in.
inline void check_constant(const Named& t, const Named& of) {
  check_sizes(t, {channels_of(of.tensor).count});
  check_type(t, of.tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float);
  check_beside(t, of);
  STD_TORCH_CHECK(t.tensor.is_contiguous(), "bat_fast: ", t.name, " must be contiguous");
}
// What is written in place, and what is read meanwhile: `others` are like it, where they are given.
inline void check_written(const Named& t,
                          std::initializer_list<std::pair<const char*, const std::optional<Tensor>*>> others) {
  check_floating(t);
  check_alone(t);
  for (const auto& [name, other] : others) {
    if (!other->has_value()) continue;
    check_same({name, **other}, t);
    check_apart(t, {name, **other});
  }
}
inline std::optional<Tensor> laid_out(const std::optional<Tensor>& t, const Tensor& like) {
  return t ? std::optional(with_layout_of(*t, like)) : std::nullopt;
}

}  // namespace bat_fast
