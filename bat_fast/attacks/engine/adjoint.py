"""The adjoint of a convolution: the gradient at its input, computed in the way that oneDNN is fastest at.

In general that is a transposed convolution. For few input channels, as in the first layer, oneDNN computes 16
where 3 are wanted; for a window of one pixel with a stride it writes mostly zeros.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Geometry(Protocol):
    """A convolution of images of one shape.

    Attributes:
        shape, out_shape: [N, C, H, W] of its input and its output.
        kernel, stride, dilation, padding: two numbers each, as in ``torch.conv2d``.
        rest: pixels at the lower and right edge that the last window does not reach.
        groups: as in ``torch.conv2d``.
    """

    shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    padding: list[int]
    rest: list[int]
    groups: int


class Transposed:
    """The adjoint of any convolution, as a transposed convolution."""

    step = 1

    def __init__(self, conv: Geometry) -> None:
        self.conv = conv

    def refresh(self, weight: Tensor) -> None:
        """Take over the current ``weight`` [O, I / groups, h, w]."""
        c = self.conv
        window = (c.padding, c.rest, c.stride, c.dilation, c.groups)
        mkldnn = torch.ops.mkldnn
        self.weight = mkldnn._reorder_convolution_transpose_weight(weight, *window, list(c.out_shape))

    def __call__(self, grad: Tensor) -> Tensor:
        """The gradient [N, I, H, W] at the input, from ``grad`` [N, O, H', W'] at the output."""
        c = self.conv
        window = (c.padding, c.rest, c.stride, c.dilation, c.groups)
        mkldnn = torch.ops.mkldnn
        return mkldnn._convolution_transpose_pointwise(grad, self.weight, None, *window, "none", [], "")


class Sampled:
    """The adjoint of a 1x1 convolution with a stride: a product of matrices at the pixels that were read."""

    def __init__(self, conv: Geometry) -> None:
        self.step = conv.stride[0]
        self.like = list(conv.out_shape)

    @staticmethod
    def fits(c: Geometry) -> bool:
        """Whether the convolution is of this kind."""
        alone = c.kernel == [1, 1] and c.padding == [0, 0] and c.groups == 1
        return alone and c.stride[0] == c.stride[1] > 1

    def refresh(self, weight: Tensor) -> None:
        """Take over the current ``weight`` [O, I, 1, 1]."""
        self.weight = _packed(weight.transpose(0, 1).contiguous(), 0, 1, self.like)

    def __call__(self, grad: Tensor) -> Tensor:
        """The gradient at each ``step``-th pixel of the input, from ``grad`` [N, O, H', W'] at the output."""
        return _convolved(grad, self.weight, 0, 1)


class Tiled:
    """The adjoint for few input channels: a convolution that computes 2x2 pixels of the input as channels.

    With stride s and padding p, pixel 2a + u meets output row 2a/s + r through row ``u + p - r s`` of the
    window. So the rows r from -P on, for both u, make one window over the output that moves by 2/s.
    """

    step = 1

    def __init__(self, conv: Geometry) -> None:
        self.like = list(conv.out_shape)
        self.move = 2 // conv.stride[0]
        (k, _), (p, _), (s, _) = conv.kernel, conv.padding, conv.stride
        self.before = max(0, -((p - k + 1) // s))  # at least; more, until the last row is inside too
        while (span := self._span(conv)) <= self.before + (p + 1) // s:
            self.before += 1
        rows = torch.arange(2)[:, None] + p - s * (torch.arange(span) - self.before)  # [2, span]
        self.rows = torch.where((rows >= 0) & (rows < k), rows, k)  # k: a row of zeros

    def _span(self, conv: Geometry) -> int:
        return conv.out_shape[2] + 2 * self.before - self.move * (conv.shape[2] // 2 - 1)

    @staticmethod
    def fits(c: Geometry) -> bool:
        """Whether the convolution is of this kind."""
        square = all(len(set(pair)) == 1 for pair in (c.kernel, c.padding, c.stride))
        even = square and c.shape[2] == c.shape[3] and c.shape[2] % 2 == 0
        plain = c.groups == 1 and c.dilation == [1, 1] and c.stride[0] in (1, 2)
        return even and plain and c.shape[1] <= 4 and 1 < c.kernel[0] <= c.shape[2]

    def refresh(self, weight: Tensor) -> None:
        """Take over the current ``weight`` [O, I, h, w]."""
        rows = self.rows.to(weight.device)
        w = F.pad(weight, (0, 1, 0, 1))[:, :, rows][:, :, :, :, rows]  # [O, I, 2, span, 2, span]
        w = w.permute(1, 2, 4, 0, 3, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
        self.weight = _packed(w, self.before, self.move, self.like)

    def __call__(self, grad: Tensor) -> Tensor:
        """The gradient [N, I, H, W] at the input, from ``grad`` [N, O, H', W'] at the output."""
        return F.pixel_shuffle(_convolved(grad, self.weight, self.before, self.move), 2)


Adjoint = Transposed | Sampled | Tiled


def adjoint(conv: Geometry) -> Adjoint:
    """The kind that is fastest for a convolution."""
    kind = Sampled if Sampled.fits(conv) else Tiled if Tiled.fits(conv) else Transposed
    return kind(conv)


def _packed(weight: Tensor, padding: int, stride: int, like: list[int]) -> Tensor:
    window = ([padding] * 2, [stride] * 2, [1, 1], 1)
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *window, like)


def _convolved(x: Tensor, weight: Tensor, padding: int, stride: int) -> Tensor:
    window = ([padding] * 2, [stride] * 2, [1, 1], 1)
    return torch.ops.mkldnn._convolution_pointwise(x, weight, None, *window, "none", [], "")
