// What the bindings of affine.h share: channels of a tensor, types, constants.
#pragma once

#include "bind.h"
#include "kernels/affine.h"

namespace bat_fast {

// In a dense tensor, whatever the order of its dimensions, the channel is (i / stride) % channels.
inline Channels channels_of(const Tensor& t) {
  const bool one = t.dim() < 2 || t.size(1) == 1;
  return one ? Channels{1, t.numel()} : Channels{t.size(1), t.stride(1)};
}

constexpr Types<float, double, half_bits, bfloat_bits> kAffineTypes;

inline void check_floating(const Tensor& t) {
  STD_TORCH_CHECK(with_type(t, kAffineTypes, [](auto) {}), "bat_fast: affine takes floating point alone");
}
template <typename C>
const C* constants(const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == stored_as(C{}),
                  "bat_fast: affine takes constants in the type that it computes in");
  return pointer<C>(t);
}
inline std::optional<Tensor> laid_out(const std::optional<Tensor>& t, const Tensor& like) {
  return t ? std::optional(with_layout_of(*t, like)) : std::nullopt;
}

}  // namespace bat_fast
