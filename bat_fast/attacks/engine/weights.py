"""Constant weights of a layer, with the batch norm after it folded in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Weights:
    """The weights of a layer with the batch norm after it folded in, in the precision of the attack.

    ``w' = w s`` and ``b' = b s + t`` per output channel, with ``s = gamma / sqrt(var + eps)`` and
    ``t = beta - mean s``. The buffers are made once; `refresh` writes the current values into them.
    """

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, norm: nn.Module | None, dtype: torch.dtype | None
    ) -> None:
        self.layer, self.norm = layer, norm
        self.dtype = layer.weight.dtype if dtype is None else dtype
        four = layer.weight.dim() == 4
        self.format = torch.channels_last if four else torch.contiguous_format
        self.weight = torch.empty_like(layer.weight, dtype=self.dtype, memory_format=self.format)
        # Two passes where it is cast: a product cast on the way out is 20 to 100 times slower on a CPU.
        same = layer.weight.dtype == self.dtype
        self._folded = self.weight if same else torch.empty_like(layer.weight, memory_format=self.format)
        some = layer.bias is not None or norm is not None
        self.packed = four and packs(self.weight, self.dtype)
        # Beside a convolution that is not packed the bias is added by a kernel that computes in float32.
        alone = four and not self.packed
        wide = torch.promote_types(self.dtype, torch.float32) if alone else self.dtype
        self.bias = layer.weight.new_empty(len(layer.weight), dtype=wide) if some else None

    def refresh(self) -> None:
        """Write the current values into the buffers."""
        weight = self.layer.weight
        scale, bias = self.scale_and_bias()
        if scale is not None:
            torch.mul(weight, scale.view(-1, *[1] * (weight.dim() - 1)), out=self._folded)
            weight = self._folded
        if weight is not self.weight:
            self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def scale_and_bias(self) -> tuple[Tensor | None, Tensor | None]:
        """Scale [O] of the output channels and bias [O] after it; None where there is none."""
        bias = self.layer.bias
        if self.norm is None:
            return None, bias
        scale, shift = (t.to(self.layer.weight.dtype) for t in affine_of(self.norm))
        return scale, shift if bias is None else torch.addcmul(shift, bias, scale)


def packs(t: Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes convolutions in ``dtype`` where ``t`` is, with weights laid out for itself."""
    if not t.is_cpu or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def affine_of(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale [C] and shift [C] of a batch norm in eval mode, in float32 at least."""
    wide = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = torch.rsqrt(norm.running_var.to(wide) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias
