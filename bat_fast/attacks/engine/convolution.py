"""Convolutions with constant weights, and the gradient at their input alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.attacks.engine.adjoint import adjoint
from bat_fast.attacks.engine.weights import Weights
from bat_fast.ops.affine import unchecked_affine

_aten = torch.ops.aten
_ALIGNED = 8  # channels in 16 bits that tensor cores load at once


class Convolution:
    """``conv2d(x, w) + b`` with optional sum and ReLU on the way out, for one shape of image.

    On a CPU in float32 or bfloat16 the weights are packed for oneDNN once per refresh, in both directions:
    left to each call that costs a fifth of a convolution with 512 channels of 4x4. ReLU and the sum of a
    residual branch are done where the result is written.

    Elsewhere, on a GPU above all, bias and ReLU are one pass over the result, or none where cuDNN does them
    on the way out: torch would take two, the first of them not by vectors in 16 bits. There, too, images of
    few channels, pixels, are filled up with zeros to the number that tensor cores take: for three cuDNN
    falls back to slower kernels and another layout.
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
        self.packed = weights.packed
        few = not self.packed and weight.itemsize == 2 and conv.groups == 1
        self.missing = -conv.in_channels % _ALIGNED if few else 0
        self._weight = weight
        if self.missing:
            filled = F.pad(weight, (0, 0, 0, 0, 0, self.missing)).zero_()
            self._weight = filled.contiguous(memory_format=torch.channels_last)
        self._ones = None if weights.bias is None else torch.ones_like(weights.bias)
        self._narrow: Tensor | None = None  # the bias in the precision of the weights
        if weight.is_cuda and weights.bias is not None and torch.backends.cudnn.is_available():
            self._narrow = weights.bias.to(weight.dtype, copy=True)
        self._adjoint = adjoint(self) if self.packed else None
        self.step = 1 if self._adjoint is None else self._adjoint.step

    def refresh(self) -> None:
        """Take over the weights as they are now."""
        if self.missing:
            self._weight[:, : -self.missing].copy_(self.weights.weight)
        if self._narrow is not None and self.weights.bias is not None:
            self._narrow.copy_(self.weights.bias)
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
            return self._unpacked(x, other, relu)
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

    def _unpacked(self, x: Tensor, other: Tensor | None, relu: bool) -> Tensor:
        """`forward` where oneDNN does not compute."""
        if self.missing:
            x = F.pad(x, (0, 0, 0, 0, 0, self.missing))
        if relu and other is None and self._narrow is not None:
            try:
                return _aten.cudnn_convolution_relu(
                    x, self._weight, self._narrow, self.stride, self.padding, self.dilation, self.groups
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # cuDNN has no such kernel for this convolution
                self._narrow = None
        out = torch.conv2d(x, self._weight, None, self.stride, self.padding, self.dilation, self.groups)
        out = out if other is None else out.add_(other)
        if self._ones is not None:
            return unchecked_affine(out, self._ones, self.weights.bias, relu)
        return out.relu_() if relu else out

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient at every ``step``-th pixel of the input each way; the others have none.

        Args:
            grad: [N, O, H', W'].

        Returns:
            A new tensor, [N, I, ceil(H / step), ceil(W / step)].
        """
        if self._adjoint is not None:
            return self._adjoint(grad)
        # Only shape and layout of the input are read. cuDNN copies the gradient into that layout, and back,
        # and reads as many images of it as the input has, also where there are fewer.
        shape, last = (len(grad), self.shape[1] + self.missing, *self.shape[2:]), torch.channels_last
        x = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=last)
        passed = _aten.convolution_backward(
            grad, x, self._weight, None, self.stride, self.padding, self.dilation,
            False, [0, 0], self.groups, [True, False, False],
        )[0]  # fmt: skip
        return passed[:, : self.shape[1]] if self.missing else passed
