"""Convolutions with constant weights, and the gradient at their input alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.adjoint import adjoint
from bat_fast.attacks.engine.weights import Weights

_aten = torch.ops.aten


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
        self._adjoint = adjoint(self) if self.packed else None
        self.step = 1 if self._adjoint is None else self._adjoint.step

    def refresh(self) -> None:
        """Take over the weights as they are now."""
        if not self.packed:
            return
        w, mkldnn = self.weights.weight, torch.ops.mkldnn
        window = (self.stride, self.dilation, self.groups)
        self._weight = mkldnn._reorder_convolution_weight(w, self.padding, *window, list(self.shape))
        if self._adjoint is not None:
            self._adjoint.refresh(w)

    def forward(self, x: Tensor, other: Tensor | None, relu: bool, write_other: bool) -> Tensor:
        """The convolution of ``x``, plus a second branch, through ReLU.

        Args:
            x: [N, I, H, W].
            other: [N, O, H', W'], added before ReLU; None adds nothing.
            relu: whether there is a ReLU.
            write_other: the result may be written over ``other``.

        Returns:
            [N, O, H', W'].
        """
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
            return mkldnn._convolution_pointwise(x, self._weight, bias, *window, unary or "none", [], "")
        if write_other:
            return mkldnn._convolution_pointwise_.binary(
                other, x, self._weight, bias, *window, "add", 1.0, unary, [], None
            )
        if tuple(self.out_shape[2:]) == (1, 1):  # torch 2.10 fails there: "could not create a memory"
            out = mkldnn._convolution_pointwise(x, self._weight, bias, *window, "none", [], "").add_(other)
            return out.relu_() if relu else out
        return mkldnn._convolution_pointwise.binary(
            x, other, self._weight, bias, *window, "add", 1.0, unary, [], None
        )

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient at every ``step``-th pixel of the input each way; the others have none.

        Args:
            grad: [N, O, H', W'].

        Returns:
            A new tensor, [N, I, ceil(H / step), ceil(W / step)].
        """
        if self._adjoint is not None:
            return self._adjoint(grad)
        # Only shape and layout of the input are read. cuDNN copies the gradient into that layout, and back; it
        # reads a gradient of as many images as the input says, also where there are fewer.
        shape, last = (len(grad), *self.shape[1:]), torch.channels_last
        x = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=last)
        return _aten.convolution_backward(
            grad, x, self.weights.weight, None, self.stride, self.padding, self.dilation,
            False, [0, 0], self.groups, [True, False, False],
        )[0]  # fmt: skip
