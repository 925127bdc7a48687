"""Batch norms that stay layers of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.convolution import affine_of
from bat_fast.attacks.engine.gradients import Gradients
from bat_fast.attacks.engine.layers import Layer, Values
from bat_fast.attacks.engine.pointwise import Pointwise

_aten = torch.ops.aten


class AffineLayer(Layer):
    """``act(batch norm)`` in eval mode with no convolution before it to fold it into."""

    def __init__(self, norm: nn.Module, act: Pointwise | None) -> None:
        self.norm: Any = norm
        self.act = act
        self._scale: Tensor | None = None

    def refresh(self) -> None:
        scale, _ = affine_of(self.norm)
        if self._scale is None:
            self._scale = torch.empty_like(scale)
        self._scale.copy_(scale)  # at the same address for good: a CUDA graph reads it

    def forward(self, values: Values) -> None:
        n = self.norm
        z = torch.batch_norm(
            values[self.sources[0]], n.weight, n.bias, n.running_mean, n.running_var, False, 0.0, n.eps, False
        )
        values[self.target] = self._activate(z)

    def backward(self, grads: Gradients) -> None:
        grad, own = self._incoming(grads)
        assert self._scale is not None
        scale = self._scale.view(-1, 1, 1).to(grad.dtype)
        grads.add(self.sources[0], grad.mul_(scale) if own else grad * scale, own=True)

    def overwrites(self) -> bool:
        return self.act is None


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
