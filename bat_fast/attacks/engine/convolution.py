"""Convolutions with constant weights, and the gradient at their input alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.adjoint import adjoint

_aten = torch.ops.aten


class Weights:
    """Weights of a layer with the batch norm after it folded in, in the precision of the attack.

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
        self.bias = layer.weight.new_empty(len(layer.weight), dtype=self.dtype) if some else None

    def refresh(self) -> None:
        """Write the current values."""
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
        """The factor of each output channel, and the bias behind it; None where there is none."""
        bias = self.layer.bias
        if self.norm is None:
            return None, bias
        scale, shift = (t.to(self.layer.weight.dtype) for t in affine_of(self.norm))
        return scale, shift if bias is None else torch.addcmul(shift, bias, scale)


def affine_of(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel of a batch norm in eval mode, in float32 at least."""
    wide = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = torch.rsqrt(norm.running_var.to(wide) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


class Convolution:
    """``conv2d(x, w) + b`` with optional sum and ReLU on the way out, for one shape of image.

    On a CPU in float32 or bfloat16 the weights are packed for oneDNN once per refresh, in both directions:
    left to each call that costs a fifth of a convolution with 512 channels of 4x4. ReLU and the sum of a
    residual branch are done where the result is written.
    """

    def __init__(self, weights: Weights, shape: tuple[int, ...]) -> None:
        conv = weights.layer
        assert isinstance(conv, nn.Conv2d)
        self.weights, self.shape = weights, shape
        pad = conv.padding
        if isinstance(pad, str):  # "valid", or "same" with equal sides
            sizes = zip(conv.kernel_size, conv.dilation, strict=True)
            pad = tuple((k - 1) * d // 2 if pad == "same" else 0 for k, d in sizes)
        self.stride, self.dilation, self.padding = list(conv.stride), list(conv.dilation), list(pad)
        self.kernel, self.groups = list(conv.kernel_size), conv.groups
        sides = zip(shape[2:], self.padding, self.dilation, conv.kernel_size, self.stride, strict=True)
        spans = [(size + 2 * p - d * (k - 1) - 1, s) for size, p, d, k, s in sides]
        self.out_shape = (shape[0], conv.out_channels, *(span // s + 1 for span, s in spans))
        self.rest = [span % s for span, s in spans]  # pixels that the last window does not reach
        weight = weights.weight
        self.packed = (
            weight.is_cpu
            and weight.dtype in (torch.float32, torch.bfloat16)
            and torch.backends.mkldnn.is_available()
            and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
        self._back = adjoint(self) if self.packed else None
        self.step = 1 if self._back is None else self._back.step

    def refresh(self) -> None:
        """Take over the weights as they are now."""
        if not self.packed:
            return
        w, mkldnn = self.weights.weight, torch.ops.mkldnn
        window = (self.stride, self.dilation, self.groups)
        self.ahead = mkldnn._reorder_convolution_weight(w, self.padding, *window, list(self.shape))
        if self._back is not None:
            self._back.refresh(w)

    def forward(self, x: Tensor, other: Tensor | None, relu: bool, write_other: bool) -> Tensor:
        """The convolution of ``x`` plus ``other``, through ReLU if ``relu``; it may overwrite ``other``."""
        window, bias = (self.padding, self.stride, self.dilation, self.groups), self.weights.bias
        unary = "relu" if relu else None
        mkldnn = torch.ops.mkldnn
        if not self.packed:
            out = torch.conv2d(
                x, self.weights.weight, bias, self.stride, self.padding, self.dilation, self.groups
            )
            out = out if other is None else out.add_(other)
            return out.relu_() if relu else out
        if other is None:
            return mkldnn._convolution_pointwise(x, self.ahead, bias, *window, unary or "none", [], "")
        if write_other:
            return mkldnn._convolution_pointwise_.binary(
                other, x, self.ahead, bias, *window, "add", 1.0, unary, [], None
            )
        if tuple(self.out_shape[2:]) == (1, 1):  # torch 2.10 fails there: "could not create a memory"
            out = mkldnn._convolution_pointwise(x, self.ahead, bias, *window, "none", [], "").add_(other)
            return out.relu_() if relu else out
        return mkldnn._convolution_pointwise.binary(
            x, other, self.ahead, bias, *window, "add", 1.0, unary, [], None
        )

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient of every ``step``-th pixel of ``x`` each way, a new tensor; the others have none."""
        if self._back is not None:
            return self._back(grad)
        # Only the shape of the input is read.
        x = grad.new_empty(1).expand(self.shape)
        return _aten.convolution_backward(
            grad, x, self.weights.weight, None, self.stride, self.padding, self.dilation,
            False, [0, 0], self.groups, [True, False, False],
        )[0]  # fmt: skip
