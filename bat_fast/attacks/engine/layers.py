"""The layers of a program: a forward pass, and a backward pass to the inputs alone, not to the weights."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.convolution import Convolution
from bat_fast.attacks.engine.gradients import Gradients
from bat_fast.attacks.engine.matrix import linear, linear_backward
from bat_fast.attacks.engine.pointwise import RELU, Pointwise
from bat_fast.attacks.engine.weights import Weights

_aten = torch.ops.aten
Values = list[Any]


class Layer:
    """A layer reads ``values`` at its sources and writes one at its target."""

    sources: tuple[int, ...] = ()
    target = -1
    act: Pointwise | None = None
    relu = False  # at the end, as part of the layer itself; then `act` is None
    saved: Any = None

    @property
    def targets(self) -> tuple[int, ...]:
        """All slots that the layer writes."""
        return (self.target,)

    def refresh(self) -> None:
        """Take over the weights as they are now."""

    def forward(self, values: Values) -> None:
        """Compute the target, and keep what `backward` needs."""
        raise NotImplementedError

    def backward(self, grads: Gradients) -> None:
        """Pass the gradient of the target on to the sources, and forget what was kept."""
        raise NotImplementedError

    def overwrites(self) -> bool:
        """Whether a later layer may write over the target."""
        return False

    def keeps(self) -> tuple[int, ...]:
        """The sources that `backward` looks at again."""
        return ()

    def _activate(self, z: Tensor) -> Tensor:
        """The activation of ``z``; keeps the tensor that its backward pass needs."""
        if self.act is None:
            return z
        y = self.act.value_(z)
        self.saved = y if self.act.saves_output else z
        return y

    def _activated(self, out: Tensor) -> Tensor:
        """The activation of ``out``, to which a ReLU has been applied already."""
        if self.act is not RELU:
            return self._activate(out)
        self.saved = out
        return out

    def _incoming(self, grads: Gradients) -> tuple[Tensor, bool]:
        """The gradient before the activation, and whether it may be overwritten."""
        grad, own = grads.take(self.target)
        assert grad is not None  # every layer is used
        if self.act is not None:
            grad, own = self.act.into(grad, self.saved, own), True
            self.saved = None
        return grad, own


class ConvLayer(Layer):
    """``act(conv(x) [batch norm] + other)``."""

    def __init__(self, conv: Convolution, act: Pointwise | None, other: int | None) -> None:
        self.conv, self.act, self.other = conv, act, other
        self.write_other = self.adds_later = False  # later: the first that reads the target adds ``other``

    def refresh(self) -> None:
        self.conv.weights.refresh()
        self.conv.refresh()

    def forward(self, values: Values) -> None:
        dtype = self.conv.weights.dtype
        x, now = values[self.sources[0]], None if self.adds_later else self.other
        other = None if now is None else values[now]
        x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if other is not None:
            other = other.to(dtype=dtype, memory_format=torch.channels_last)
        out = self.conv.forward(x, other, self.act is RELU, self.write_other)
        values[self.target] = self._activated(out)

    def backward(self, grads: Gradients) -> None:
        grad, own = self._incoming(grads)
        grad = grad.to(dtype=self.conv.weights.dtype, memory_format=torch.channels_last)
        passed = self.conv.backward(grad)
        if self.conv.step == 1:
            grads.add(self.sources[0], passed, own=True)
        else:
            shape = (len(passed), *self.conv.shape[1:])
            grads.add_sampled(self.sources[0], passed, self.conv.step, shape)
        if self.other is not None:
            grads.add(self.other, grad, own=own)

    def overwrites(self) -> bool:
        return self.act is None


class LinearLayer(Layer):
    """``act(x W' + b)``."""

    def __init__(self, weights: Weights, act: Pointwise | None) -> None:
        self.weights, self.act = weights, act

    def refresh(self) -> None:
        self.weights.refresh()

    def forward(self, values: Values) -> None:
        x = values[self.sources[0]].to(self.weights.dtype)
        out = linear(x, self.weights.weight, self.weights.bias, self.act is RELU)
        values[self.target] = self._activated(out)

    def backward(self, grads: Gradients) -> None:
        grad, _ = self._incoming(grads)
        passed = linear_backward(grad.to(self.weights.dtype), self.weights.weight)
        grads.add(self.sources[0], passed, own=True)


class ActivationLayer(Layer):
    """An activation of a value that others read too."""

    def __init__(self, act: Pointwise) -> None:
        self.act = act

    def forward(self, values: Values) -> None:
        z = values[self.sources[0]]
        values[self.target] = self._activate(
            z.clone() if self.act is not None and self.act.saves_output else z
        )

    def backward(self, grads: Gradients) -> None:
        grad, own = self._incoming(grads)
        grads.add(self.sources[0], grad, own=own)

    def keeps(self) -> tuple[int, ...]:
        return self.sources


class SumLayer(Layer):
    """``act(a + b)`` of one shape."""

    def __init__(self, act: Pointwise | None) -> None:
        self.act = act

    def forward(self, values: Values) -> None:
        a, b = (values[source] for source in self.sources)
        values[self.target] = self._activate(a + b)

    def backward(self, grads: Gradients) -> None:
        grad, _ = self._incoming(grads)
        a, b = self.sources
        grads.add(a, grad, own=False)
        grads.add(b, grad, own=False)

    def overwrites(self) -> bool:
        return self.act is None


class ConstantLayer(Layer):
    """Addition, subtraction, multiplication or division with a constant as the second argument."""

    def __init__(self, function: Callable[[Any, Any], Any], constant: Callable[[], Any]) -> None:
        self.function, self.constant = function, constant

    def forward(self, values: Values) -> None:
        values[self.target] = self.function(values[self.sources[0]], self.constant())

    def backward(self, grads: Gradients) -> None:
        grad, own = self._incoming(grads)
        if self.function in (operator.mul, operator.truediv):
            grad, own = self.function(grad, self.constant()), True
        grads.add(self.sources[0], grad, own=own)


class MeanLayer(Layer):
    """The mean over height and width."""

    def __init__(self, keepdim: bool) -> None:
        self.keepdim = keepdim

    def forward(self, values: Values) -> None:
        x = values[self.sources[0]]
        self._shape = x.shape
        values[self.target] = x.mean((2, 3), keepdim=self.keepdim)

    def backward(self, grads: Gradients) -> None:
        grad, _ = self._incoming(grads)
        n, c, h, w = self._shape
        grads.add(self.sources[0], (grad.view(n, c, 1, 1) / (h * w)).expand(n, c, h, w), own=False)


class FlattenLayer(Layer):
    """``flatten(x, 1)``: [N, ...] to [N, D]."""

    def forward(self, values: Values) -> None:
        x = values[self.sources[0]]
        self._shape = x.shape
        values[self.target] = x.flatten(1)

    def backward(self, grads: Gradients) -> None:
        grad, own = self._incoming(grads)
        grads.add(self.sources[0], grad.reshape(self._shape), own=own)


class MaxPoolLayer(Layer):
    """``max_pool2d``."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        p: Any = pool
        self.window: list[Any] = [_pair(v) for v in (p.kernel_size, p.stride, p.padding, p.dilation)] + [
            p.ceil_mode
        ]

    def forward(self, values: Values) -> None:
        x = values[self.sources[0]]
        out, index = _aten.max_pool2d_with_indices(x, *self.window)
        self._kept = (x, index)
        values[self.target] = out

    def backward(self, grads: Gradients) -> None:
        grad, _ = self._incoming(grads)
        x, index = self._kept
        del self._kept
        gx = _aten.max_pool2d_with_indices_backward(grad.to(x.dtype), x, *self.window, index)
        grads.add(self.sources[0], gx, own=True)

    def keeps(self) -> tuple[int, ...]:
        return self.sources


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
