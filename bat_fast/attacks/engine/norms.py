"""Batch norms that stay layers of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.gradients import Gradients
from bat_fast.attacks.engine.layers import Layer, Values
from bat_fast.attacks.engine.pointwise import RELU, Pointwise
from bat_fast.attacks.engine.weights import affine_of
from bat_fast.ops.affine import (
    unchecked_affine,
    unchecked_affine_grad_,
    unchecked_affine_relu_,
    unchecked_affine_relu_grad_,
)

_aten = torch.ops.aten


class AffineLayer(Layer):
    """``act(batch norm)`` in eval mode with no convolution before it to fold it into.

    Forward and backward are one pass over memory each: ReLU, its slope, and the sum with the gradient of a
    residual branch are part of it. Where oneDNN does not compute the convolutions around it, it also adds the
    residual branch to its input, and keeps a bit of each output instead of all of it.

    Args:
        norm: with running statistics.
        act: activation behind it.
        packed: whether oneDNN computes the convolutions.
    """

    def __init__(self, norm: nn.Module, act: Pointwise | None, packed: bool = True) -> None:
        self.norm: Any = norm
        self.relu = act is RELU
        self.by_bits = self.relu and not packed
        self.other: int | None = None  # what is added to the input, in place
        self.act = None if self.relu else act
        # At the same addresses for good: a CUDA graph reads them.
        self._constants = [torch.empty_like(t) for t in affine_of(norm)]

    def refresh(self) -> None:
        for constant, t in zip(self._constants, affine_of(self.norm), strict=True):
            constant.copy_(t)

    def forward(self, values: Values) -> None:
        x = values[self.sources[0]]
        if self.by_bits:
            other = None if self.other is None else values[self.other].to(x.dtype)
            y, self._bits = unchecked_affine_relu_(x, other, *self._constants_for(x))
            self._like = y.shape, y.stride(), y.dtype
            values[self.target] = y
            return
        y = unchecked_affine(x, *self._constants_for(x), self.relu)
        self._y = y if self.relu else None
        values[self.target] = self._activate(y)

    def backward(self, grads: Gradients) -> None:
        grad, own = self._incoming(grads)
        if self.by_bits:
            self._backward_by_bits(grad, own, grads)
            return
        y, self._y = self._y, None
        like = grad if y is None else y
        grad = grad.to(like.dtype) if own else torch.empty_like(like).copy_(grad)
        other = grads.take_if(self.sources[0], grad.dtype)
        unchecked_affine_grad_(grad, y, self._constants_for(grad)[0], other)
        grads.add(self.sources[0], grad, own=True)

    def _backward_by_bits(self, grad: Tensor, own: bool, grads: Gradients) -> None:
        (shape, stride, dtype), bits = self._like, self._bits
        del self._bits
        if not own or grad.stride() != stride or grad.dtype != dtype:  # bits lie in the order of the output
            grad = torch.empty_strided(shape, stride, dtype=dtype, device=grad.device).copy_(grad)
        other = grads.take_if(self.sources[0], grad.dtype)
        unchecked_affine_relu_grad_(grad, bits, self._constants_for(grad)[0], other)
        grads.add(self.sources[0], grad, own=True)

    def overwrites(self) -> bool:
        return self.act is None and not self.relu

    def _constants_for(self, x: Tensor) -> list[Tensor]:
        """Scale and shift in the precision that ``x`` is computed in, which an attack may choose."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        same = self._constants[0].dtype == wide
        return self._constants if same else [t.to(wide) for t in self._constants]


class BatchNormLayer(Layer):
    """``act(batch norm)`` with the statistics of the batch; the running ones are left alone."""

    def __init__(self, norm: nn.Module, act: Pointwise | None) -> None:
        self.norm: Any = norm
        self.act = act

    def forward(self, values: Values) -> None:
        n = self.norm
        x = values[self.sources[0]]
        z, mean, invstd = _aten.native_batch_norm(x, n.weight, n.bias, None, None, True, 0.0, n.eps)
        self._kept = (x, mean, invstd)
        values[self.target] = self._activate(z)

    def backward(self, grads: Gradients) -> None:
        grad, _ = self._incoming(grads)
        (x, mean, invstd), n = self._kept, self.norm
        del self._kept
        gx, _, _ = _aten.native_batch_norm_backward(
            grad.to(x.dtype), x, n.weight, None, None, mean, invstd, True, n.eps, [True, False, False]
        )
        grads.add(self.sources[0], gx, own=True)

    def keeps(self) -> tuple[int, ...]:
        return self.sources
