"""Small networks in the cache of a CPU: logits, gradients at the pixels, whole attacks in one call."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._checks import attack_arguments, check_number, check_step
from bat_fast._native import changed, operator
from bat_fast.ops._small import check_small

KINDS = ("window", "affine", "max_pool", "mean", "sum")
ACTIVATIONS = (None, "relu", "silu")
LANES = 32  # images that the kernel takes at a time


class Map(NamedTuple):
    """A value of the network for one image, [height, width, channels] in memory."""

    height: int
    width: int
    channels: int


class Window(NamedTuple):
    """The window of a convolution or a pooling; that of a linear layer is one pixel."""

    height: int = 1
    width: int = 1
    stride_y: int = 1
    stride_x: int = 1
    pad_y: int = 0
    pad_x: int = 0


class PlanLayer(NamedTuple):
    """``target = activation(layer(source) + other)``. Maps and weights are named by where they begin.

    ``window``: ``sum_k weight[o, k, i] source[k, i] + bias[o]``; ``affine``: ``weight[c] source + bias[c]``.
    ``max_pool``, ``mean`` (over all pixels) and ``sum`` (the source itself) have no weights.
    """

    kind: str
    source: int
    other: int  # added before the activation; -1 is nothing
    before: int  # where the argument of a SiLU is kept
    target: int
    activation: str | None
    into: Map
    out: Map
    window: Window = Window()
    weight: int = -1  # [out, window pixel, in]; for affine [channels], -1 is 1
    bias: int = -1  # [out]; -1 is none


_PARTS: dict[str, Any] = {"into": Map, "out": Map, "window": Window}  # a column for each field of theirs
_NAMES = ([f"{f}.{part}" for part in _PARTS[f]._fields] if f in _PARTS else [f] for f in PlanLayer._fields)
# A test compares these names with those of csrc/torch/plan.h.
COLUMNS = (*chain(*_NAMES), "adds_source", "adds_other")


def network_plan(layers: Iterable[PlanLayer]) -> Tensor:
    """The layers as the kernel reads them, int64 [layers, `COLUMNS`]; `layers_of` reads them back.

    The last two columns say whether a later layer has written the gradient of the source, and of the other.
    """
    rows, written = [], set()
    for a in reversed(list(layers)):
        kind, source, other, before, target, activation, into, out, window, weight, bias = a
        adds_other = other in written
        written.add(other)
        row = [KINDS.index(kind), source, other, before, target, ACTIVATIONS.index(activation)]
        rows.append([*row, *into, *out, *window, weight, bias, source in written, adds_other])
        written.add(source)
    return torch.tensor(rows[::-1], dtype=torch.int64)


def layers_of(plan: Tensor) -> list[PlanLayer]:
    """The layers of a plan."""
    layers = []
    for row in plan.tolist():
        values, parts = iter(row), (_PARTS.get(field) for field in PlanLayer._fields)
        a: Any = PlanLayer(*(p(*islice(values, len(p._fields))) if p else next(values) for p in parts))
        layers.append(a._replace(kind=KINDS[a.kind], activation=ACTIVATIONS[a.activation]))
    return layers


def _forward(x: Tensor, plan: Tensor, weights: Tensor) -> Tensor:
    """Logits [N, K], differentiable in ``x``."""
    maps = {0: x.permute(0, 2, 3, 1)}  # [N, H, W, C]
    for a in layers_of(plan):
        (kh, kw, *_), (h, w, channels) = a.window, a.into
        value = maps[a.source].reshape(len(x), h, w, channels).permute(0, 3, 1, 2)
        bias = None if a.bias < 0 else weights[a.bias : a.bias + a.out.channels]
        stride, pad = a.window[2:4], a.window[4:6]
        if a.kind == "window":
            size = kh * kw * channels * a.out.channels
            weight = weights[a.weight : a.weight + size].view(a.out.channels, kh, kw, channels)
            value = F.conv2d(value, weight.permute(0, 3, 1, 2), bias, stride, pad)
        elif a.kind == "affine":
            if a.weight >= 0:
                value = value * weights[a.weight : a.weight + channels].view(-1, 1, 1)
            value = value if bias is None else value + bias.view(-1, 1, 1)
        elif a.kind == "max_pool":
            value = F.max_pool2d(
                F.pad(value, (pad[1], pad[1], pad[0], pad[0]), value=-torch.inf), (kh, kw), stride
            )
        elif a.kind == "mean":
            value = value.mean((2, 3), keepdim=True)
        if a.other >= 0:
            value = value + maps[a.other].reshape(len(x), *a.out).permute(0, 3, 1, 2)
        value = value if a.activation is None else getattr(F, a.activation)(value)
        maps[a.target] = value.permute(0, 2, 3, 1)
    return maps[a.target].flatten(1)


def _fake_gradient(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, classes = rest
    return x.new_empty(x.shape[0], classes), torch.empty_like(x)


@operator(
    "network_gradient(Tensor x, Tensor? grad, Tensor plan, Tensor weights, int classes)"
    " -> (Tensor logits, Tensor grad_x)",
    fake=_fake_gradient,
)
def _gradient_reference(
    x: Tensor, grad: Tensor | None, plan: Tensor, weights: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    del classes
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = _forward(leaf, plan, weights)
        if grad is None:
            return logits.detach(), torch.empty_like(x)
        return logits.detach(), torch.autograd.grad(logits, leaf, grad)[0]


def network_gradient(
    x: Tensor, grad: Tensor | None, *, plan: Tensor, weights: Tensor, classes: int
) -> tuple[Tensor, Tensor | None]:
    """Logits of a small network, and the gradient at its pixels.

    Args:
        x: [N, C, H, W] images, float32 or float64.
        grad: [N, K] gradient at the logits; None asks for the logits alone.
        plan: of `network_plan`; the first layer reads the images, the last one writes the logits.
        weights: flat, what the plan refers to, in the dtype of ``x``.
        classes: K.

    Returns:
        logits [N, K]; grad_x [N, C, H, W] in the layout of ``x``, or None.

    Raises:
        ValueError, TypeError: an argument does not fit. RuntimeError: the plan does not.
    """
    check_small("x", x, plan, weights)
    if grad is not None and (grad.shape != (len(x), classes) or grad.dtype != x.dtype):
        raise ValueError(
            f"grad must be [N, K] = {[len(x), classes]} {x.dtype}, got {list(grad.shape)} {grad.dtype}"
        )
    logits, grad_x = torch.ops.bat_fast.network_gradient(x.detach(), grad, plan, weights, classes)
    return logits, None if grad is None else grad_x


@operator(
    "network_attack_(Tensor(a!) adv, Tensor clean, Tensor target, Tensor plan, Tensor weights, int classes,"
    " str loss, Tensor? reference, Tensor? soft, float soft_weight, bool targeted, Tensor? label,"
    " str norm, int steps, float step_size, float eps, float lo, float hi) -> ()",
    fake=lambda *_: None,
)
def _attack_reference(adv: Tensor, clean: Tensor, target: Tensor, *rest: Any) -> None:
    plan, weights, classes, *climbed, norm, steps, step_size, eps, lo, hi = rest
    native = torch.ops.bat_fast
    for _ in range(steps):
        logits, _ = _gradient_reference(adv, None, plan, weights, classes)
        grad, _ = native.attack_grad(logits, target, *climbed)
        _, grad = _gradient_reference(adv, grad, plan, weights, classes)
        getattr(native, f"{norm}_step_")(adv, grad, clean, step_size, eps, lo, hi)


def network_attack_(
    adv: Tensor,
    clean: Tensor,
    target: Tensor,
    *,
    plan: Tensor,
    weights: Tensor,
    classes: int,
    loss: str = "ce",
    reference: Tensor | None = None,
    soft: Tensor | None = None,
    soft_weight: float = 0.0,
    targeted: bool = False,
    label: Tensor | None = None,
    norm: str = "linf",
    steps: int,
    step_size: float,
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """All steps of PGD on a small network, in place (Madry et al. 2018).

    What ``steps`` times `network_gradient`, `attack_grad` and the step of the norm give, to rounding. No
    image's result depends on another image.

    Args:
        adv: [N, C, H, W] images to move, float32 or float64.
        clean: centre of the ball; shape and dtype of ``adv``.
        target, loss, reference, soft, soft_weight, targeted, label: as in `bat_fast.ops.attack_grad`.
        plan, weights, classes: as in `network_gradient`.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of steps, >= 0.
        step_size, eps, lo, hi: as in `linf_step_` and `l2_step_`.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError, TypeError, RuntimeError: as in `network_gradient` and `attack_grad`.
    """
    check_small("adv", adv, plan, weights)
    check_step(adv, clean, step_size, eps, lo, hi)
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm must be 'linf' or 'l2', got {norm!r}")
    check_number("steps", steps, 0.0)
    logits = adv.new_empty(len(adv), classes)
    climbed = attack_arguments(logits, target, loss, reference, soft, soft_weight, targeted, label)
    torch.ops.bat_fast.network_attack_(
        adv, clean, target, plan, weights, classes, *climbed, norm, steps, step_size, eps, lo, hi
    )
    return changed(adv)
