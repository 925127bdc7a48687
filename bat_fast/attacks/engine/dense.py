"""Tiny networks as chains of matrices: on a few pixels a convolution costs more than it computes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.convolution import Convolution, Weights
from bat_fast.attacks.engine.gradients import Gradients
from bat_fast.attacks.engine.layers import (
    ConstantLayer,
    ConvLayer,
    FlattenLayer,
    Layer,
    LinearLayer,
    MeanLayer,
    Values,
)
from bat_fast.attacks.engine.matrix import linear, linear_backward
from bat_fast.attacks.engine.pointwise import RELU, Pointwise

_MOST_ENTRIES = 1 << 20  # of all matrices together
_MOST_WASTE = 3.0  # entries per multiplication of the convolutions


class DenseLayer(Layer):
    """``act(x M + b)`` for one convolution or linear layer and the linear layers around it.

    An entry of M is one weight times a constant. Which one is found once, by pushing an identity through
    the layers with numbered weights; a refresh looks the weights up.

    Args:
        before: constants that are added to or multiplied with single pixels.
        linear: layers without constants, exactly one of which has weights.
        weights: of that one.
        shape: of one image that enters.
        act: what follows.
    """

    def __init__(
        self,
        before: list[ConstantLayer],
        linear: list[Layer],
        weights: Weights,
        shape: tuple[int, ...],
        act: Pointwise | None,
    ) -> None:
        self.before, self.weights, self.shape, self.act = before, weights, shape, act
        size = weights.weight.numel()
        ones = _pushed(linear, torch.ones(size), shape)
        number = (_pushed(linear, torch.arange(size), shape) / ones).nan_to_num_(0.0)
        index = number.round()
        if not torch.allclose(index, number, atol=1e-6):
            raise ValueError("an entry depends on several weights")
        device = weights.weight.device
        # Transposed, [out, in]: the layout of a linear layer.
        self._index = index.long().T.contiguous().to(device)
        self._share = ones.T.contiguous().to(device, weights.dtype)
        self._matrix = torch.empty_like(self._share)
        self._inner = _output(linear, shape)
        self._bias: Tensor | None = None
        self._plain = bool((self._share == 1).all()) and not before

    def refresh(self) -> None:
        self.weights.refresh()
        flat = self.weights.weight.reshape(-1)
        torch.index_select(flat, 0, self._index.view(-1), out=self._matrix.view(-1))  # half the time of take
        if not self._plain:
            self._matrix.mul_(self._share)
        bias = self.weights.bias
        if bias is not None:
            bias = bias.repeat_interleave(len(self._matrix) // len(bias))
        if self.before:
            shift, scale = (self._entering(value) for value in (0.0, 1.0))
            added = self._matrix @ shift
            bias = added if bias is None else bias + added
            self._matrix.mul_(scale - shift)
        if bias is not None:
            self._bias = bias if self._bias is None else self._bias.copy_(bias)

    def forward(self, values: Values) -> None:
        x = values[self.sources[0]]
        self._entered = x.shape
        x = x.reshape(len(x), -1).to(self.weights.dtype)
        relu = self.act is RELU
        out = linear(x, self._matrix, self._bias, relu)
        if relu:
            self.saved = out
        values[self.target] = out if relu else self._activate(out)

    def backward(self, grads: Gradients) -> None:
        grad, _ = self._incoming(grads)
        passed = linear_backward(grad.to(self.weights.dtype), self._matrix)
        grads.add(self.sources[0], passed.view(self._entered), own=True)

    def _entering(self, value: float) -> Tensor:
        """An image of one value behind the constants, [in]."""
        values: list[Any] = [torch.full((1, *self.shape), value, device=self._matrix.device)] * 2
        for layer in self.before:
            values[0] = layer.function(values[0], layer.constant())
        return values[0].flatten().to(self.weights.dtype)


def lower(layers: list[Layer], shape: tuple[int, ...]) -> list[Layer] | None:
    """The chain of matrices that ``layers`` are for images of ``shape`` [C, H, W], if that is worth it."""
    convolutions = [layer for layer in layers if isinstance(layer, ConvLayer)]
    chained = all(later.sources == (earlier.target,) for earlier, later in itertools.pairwise(layers))
    kinds = (ConstantLayer, ConvLayer, FlattenLayer, LinearLayer, MeanLayer)
    if not convolutions or not chained or not all(isinstance(layer, kinds) for layer in layers):
        return None
    work = sum(math.prod(c.conv.out_shape[1:]) * c.conv.weights.weight[0].numel() for c in convolutions)
    entries = sum(math.prod(c.conv.shape[1:]) * math.prod(c.conv.out_shape[1:]) for c in convolutions)
    if entries > min(_MOST_ENTRIES, _MOST_WASTE * work):
        return None
    result: list[Layer] = []
    before: list[ConstantLayer] = []
    linear: list[Layer] = []
    weights = None
    source = layers[0].sources
    for number, layer in enumerate(layers):
        if isinstance(layer, ConstantLayer):
            if linear:
                return None
            before.append(layer)
            continue
        linear.append(layer)
        weights = weights or _weights(layer)
        following = layers[number + 1] if number + 1 < len(layers) else None
        if weights is None or (following and not following_starts(layer, following)):
            continue
        try:
            dense = DenseLayer(before, linear, weights, shape, layer.act)
        except ValueError:
            return None
        dense.sources, dense.target = source, layer.target
        shape, source = dense._inner, (layer.target,)
        result.append(dense)
        before, linear, weights = [], [], None
    return result if not linear and not before else None


def following_starts(layer: Layer, following: Layer) -> bool:
    """Whether a new matrix begins behind ``layer``: at activations, and where other weights come next."""
    return layer.act is not None or isinstance(following, (ConvLayer, LinearLayer, ConstantLayer))


def _weights(layer: Layer) -> Weights | None:
    if isinstance(layer, ConvLayer):
        return layer.conv.weights
    return layer.weights if isinstance(layer, LinearLayer) else None


class _Numbered(Weights):
    """Weights of given values, in float64, where they stay whole numbers."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, flat: Tensor) -> None:
        self.layer, self.norm, self.bias, self.dtype = layer, None, None, torch.float64
        self.weight = flat.double().view(layer.weight.shape)


def _twin(layer: Layer, flat: Tensor, count: int) -> Layer:
    """The layer on the CPU with other weights, no bias and no activation, for ``count`` images."""
    if isinstance(layer, ConvLayer):
        conv = layer.conv.weights.layer
        numbered = _Numbered(conv, flat)
        twin: Layer = ConvLayer(Convolution(numbered, (count, *layer.conv.shape[1:])), None, None)
    elif isinstance(layer, LinearLayer):
        twin = LinearLayer(_Numbered(layer.weights.layer, flat), None)
    else:
        twin = MeanLayer(layer.keepdim) if isinstance(layer, MeanLayer) else FlattenLayer()
    twin.sources, twin.target = (0,), 0
    return twin


def _pushed(layers: list[Layer], flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The matrix [in, out] of ``layers`` when their weights are ``flat``."""
    size = math.prod(shape)
    values: list[Any] = [torch.eye(size, dtype=torch.float64).view(size, *shape)]
    for layer in layers:
        _twin(layer, flat, size).forward(values)
    return values[0].flatten(1)


def _output(layers: list[Layer], shape: tuple[int, ...]) -> tuple[int, ...]:
    values: list[Any] = [torch.zeros(1, *shape, dtype=torch.float64)]
    for layer in layers:
        weights = _weights(layer)
        _twin(layer, torch.zeros(0 if weights is None else weights.weight.numel()), 1).forward(values)
    return tuple(values[0].shape[1:])
