"""The layers of a program as a plan of `bat_fast.ops.network`: which values and weights lie where."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bat_fast.attacks.engine.layers import (
    ActivationLayer,
    ConstantLayer,
    ConvLayer,
    FlattenLayer,
    Layer,
    LinearLayer,
    MaxPoolLayer,
    MeanLayer,
    SumLayer,
)
from bat_fast.attacks.engine.norms import AffineLayer
from bat_fast.attacks.engine.weights import Weights, affine_of
from bat_fast.ops.network import ACTIVATIONS, Map, PlanLayer, Window

Refresh = Callable[[], object]


class Plan:
    """Assigns the values and weights of the layers of a program their places.

    Args:
        layers: of the program, in order.
        first: slot of the images.
        images: their shape.
        dtype: of all weights.

    Attributes:
        values: how many of one image there are, in all layers together.
        weights: how many there are.
        work: multiplications for one image.
        layers: of the plan, for `bat_fast.ops.network.network_plan`.
        binders: given the flat weights, each returns what writes those of one layer as they are now.

    Raises:
        ValueError: a layer is not one for such a plan.
    """

    def __init__(self, layers: list[Layer], first: int, images: Map, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.values = self.weights = self.work = 0
        self.binders: list[Callable[[Tensor], Refresh]] = []  # flat weights -> what writes some of them
        self.layers: list[PlanLayer] = []
        self._maps = {first: (self._room(images), images)}  # slot -> where its values begin, and their shape
        self._flat: set[int] = set()  # slots that are one row; their shape here stays that of before
        for layer in layers:
            self._read(layer)

    def classes(self, last: int) -> int:
        """The number of logits, which are what the slot ``last`` holds."""
        begin, out = self._maps[last]
        if begin != self.layers[-1].target or out[:2] != (1, 1):
            raise ValueError("it ends in something else than logits")
        return out.channels

    def _room(self, values: Map) -> int:
        begin, self.values = self.values, self.values + values.height * values.width * values.channels
        return begin

    def _read(self, layer: Layer) -> None:
        slot = layer.sources[0]
        begin, into = self._maps[slot]
        if isinstance(layer, FlattenLayer):
            self._maps[layer.target] = begin, into
            self._flat.add(layer.target)
            return
        if slot in self._flat and not isinstance(layer, LinearLayer):
            raise ValueError(f"{type(layer).__name__} behind flatten")
        if isinstance(layer, ConvLayer):
            self._convolution(layer, into)
        elif isinstance(layer, LinearLayer):
            self._linear(layer, into)
        elif isinstance(layer, (AffineLayer, ConstantLayer)):
            if isinstance(layer, ConstantLayer) and not _per_channel(layer.constant(), into.channels):
                raise ValueError("a constant per pixel")
            places: dict[str, Any] = {
                "weight": self._place(into.channels),
                "bias": self._place(into.channels),
            }
            self.binders.append(lambda flat: partial(_write_affine, flat, layer, into.channels, **places))
            self._plan(layer, "affine", into, **places)
        elif isinstance(layer, ActivationLayer):
            self._plan(layer, "affine", into)
        elif isinstance(layer, MeanLayer):
            self._plan(layer, "mean", Map(1, 1, into.channels))
        elif isinstance(layer, SumLayer):
            self._plan(layer, "sum", into, other=self._maps[layer.sources[1]][0])
        elif isinstance(layer, MaxPoolLayer):
            self._max_pool(layer, into)
        else:
            raise ValueError(type(layer).__name__)

    def _plan(
        self, layer: Layer, kind: str, out: Map, *, row: Map | None = None, other: int = -1, **rest: Any
    ) -> None:
        source, into = self._maps[layer.sources[0]]
        act = "relu" if layer.relu else layer.act and layer.act.name
        if act not in ACTIVATIONS:
            raise ValueError(f"activation {act}")
        before = self._room(out) if act == "silu" else -1
        target = self._room(out)
        self._maps[layer.target] = target, out
        self.layers.append(PlanLayer(kind, source, other, before, target, act, row or into, out, **rest))

    def _place(self, count: int) -> int:
        begin, self.weights = self.weights, self.weights + count
        return begin

    def _convolution(self, layer: ConvLayer, into: Map) -> None:
        conv = layer.conv
        if conv.groups != 1 or conv.dilation != [1, 1]:
            raise ValueError("groups or dilation")
        _, channels, height, width = conv.out_shape
        out = Map(height, width, channels)
        shape = (channels, *conv.kernel, into.channels)
        other = -1 if layer.other is None else self._maps[layer.other][0]
        places = self._weights_of(conv.weights, shape, out.height * out.width)
        window = Window(*conv.kernel, *conv.stride, *conv.padding)
        self._plan(layer, "window", out, other=other, window=window, **places)

    def _linear(self, layer: LinearLayer, into: Map) -> None:
        out, row = layer.weights.layer.weight.shape
        if into.height * into.width > 1 and layer.sources[0] not in self._flat:
            raise ValueError("a linear layer on images")
        places = self._weights_of(layer.weights, (out, *into), 1)
        self._plan(layer, "window", Map(1, 1, out), row=Map(1, 1, row), **places)

    def _weights_of(self, weights: Weights, shape: tuple[int, ...], pixels: int) -> dict[str, Any]:
        """Places for weights of ``shape`` [out, height, width, in], applied at so many ``pixels``."""
        if weights.layer.weight.dtype != self._dtype:
            raise ValueError("weights of another precision")
        out, height, width, channels = shape
        begin, count = self._place(math.prod(shape)), math.prod(shape)
        bias = -1 if weights.bias is None else self._place(out)

        def bind(flat: Tensor) -> Refresh:
            to_weight, to_bias = flat[begin : begin + count].view(shape), flat[bias : bias + out]

            def refresh() -> None:
                scale, shift = weights.scale_and_bias()
                weight = weights.layer.weight.view(out, channels, height, width)
                weight = weight if scale is None else weight * scale.view(-1, 1, 1, 1)
                to_weight.copy_(weight.permute(0, 2, 3, 1))
                if shift is not None:
                    to_bias.copy_(shift)

            return refresh

        self.binders.append(bind)
        self.work += pixels * count
        return {"weight": begin, "bias": bias}

    def _max_pool(self, layer: MaxPoolLayer, into: Map) -> None:
        (kernel, stride, pad, dilation), ceil = layer.window[:4], layer.window[4]
        if dilation != [1, 1] or ceil:
            raise ValueError("dilation or ceil_mode")
        sides = zip(into[:2], pad, kernel, stride, strict=True)
        height, width = ((size + 2 * p - k) // s + 1 for size, p, k, s in sides)
        window = Window(*kernel, *stride, *pad)
        self._plan(layer, "max_pool", Map(height, width, into.channels), window=window)


def _write_affine(flat: Tensor, layer: Layer, channels: int, weight: int, bias: int) -> None:
    scale, shift = flat[weight : weight + channels], flat[bias : bias + channels]
    if isinstance(layer, AffineLayer):
        for to, value in zip((scale, shift), affine_of(layer.norm), strict=True):
            to.copy_(value)
        return
    assert isinstance(layer, ConstantLayer)
    constant = torch.as_tensor(layer.constant(), dtype=flat.dtype)
    scale.fill_(1.0)
    shift.fill_(0.0)
    to = shift if layer.function in (operator.add, operator.sub) else scale
    to.copy_(layer.function(to, constant.flatten()))


def _per_channel(constant: Any, channels: int) -> bool:
    if not isinstance(constant, Tensor) or constant.numel() == 1:
        return True
    return constant.shape[-3:] == (channels, 1, 1)
