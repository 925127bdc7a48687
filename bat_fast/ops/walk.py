"""The walk of the fast adaptive boundary attack: its loop on any network, and on a small one in one call."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast._checks import check_labels, check_number
from bat_fast._logits import missed
from bat_fast._native import changed, operator
from bat_fast.ops._ball import length, per_image
from bat_fast.ops._small import SmallReference, check_search

_SHARE = 0.1  # at most, of the point that starts from the clean image
_OVERSHOOT = 1.05  # of a projection, so that it ends behind the boundary
_BACK = 0.9  # of the way from the clean image, once behind the boundary
_NEWTON_STEPS = 20  # a CPU looks whether fewer are enough; 3072 random pixels took 13 at most


class Network(Protocol):
    """Logits, and gradients at the pixels, as `bat_fast.attacks.engine.AttackedModel` has them."""

    def forward(self, x: Tensor) -> Tensor: ...

    def backward(self, grad: Tensor) -> Tensor: ...

    def both(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]: ...


def walk(
    network: Network, adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None, *, norm: str,
    eps: float, steps: int, lo: float, hi: float, nearest: bool = False,
) -> None:  # fmt: skip
    """Move ``adv`` [N, C, H, W] from the start to a misclassified point of the ball, or to ``clean``.

    Reads nothing on the host of a GPU.

    Args:
        network: what is walked on.
        adv, clean, y, targets, norm, eps, steps, lo, hi: as in `network_walk_`.
        nearest: of the points that are met take the nearest, as the official code does, which for an image
            depends on how long others take; else the first.
    """
    x = adv.clone()
    best = torch.full(y.shape, torch.inf, dtype=x.dtype, device=x.device)
    adv.copy_(clean)
    known: Tensor | None = network.forward(x)  # the logits at x, where the network has just been there
    assert known is not None
    classes = known.shape[1]
    for _ in range(steps):
        gap, slope = _plane(network, known, classes, x, y, targets, norm)
        offset = (slope * x).flatten(1).sum(1) - gap
        points = torch.cat([x, clean])
        plane = torch.cat([slope, slope]), torch.cat([offset, offset])
        here, there = onto_plane(points, *plane, norm, lo, hi).chunk(2)
        near, far = (length(step, norm).clamp(min=1e-8) for step in (here, there))
        share = per_image((near / (near + far)).clamp(0.0, _SHARE), x)
        x = (x + _OVERSHOOT * here) * (1 - share) + (clean + there * _OVERSHOOT) * share
        x = x.clamp(lo, hi)
        known = network.forward(x)
        wrong = missed(known, y)
        if x.is_cpu and not bool(wrong.any()):
            continue
        known = None
        away = length(x - clean, norm)
        closer = wrong & (away < best) & (away <= eps)
        if not nearest:
            closer &= best.isinf()
        adv.copy_(torch.where(per_image(closer, x), x, adv))
        best = torch.where(closer, away, best)
        x = torch.where(per_image(wrong, x), clean + (x - clean) * _BACK, x)
        if x.is_cpu and bool(best.isfinite().all()):
            break


def _plane(
    network: Network, known: Tensor | None, classes: int, x: Tensor, y: Tensor, targets: Tensor | None,
    norm: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The boundary near ``x``, made straight: how far a logit is above that of ``y``, and its gradient.

    Towards ``targets``, or where that is None, towards the class whose boundary is nearest.
    """
    true = F.one_hot(y, classes).to(x.dtype)
    if targets is not None:
        towards = F.one_hot(targets, classes).to(x.dtype) - true
        if known is None:
            known, grad = network.both(x, towards)
        else:
            grad = network.backward(towards.to(known.dtype))
        return (known * towards).sum(1), grad.to(x.dtype).nan_to_num(nan=0.0)
    gap = slope = x.new_empty(0)
    nearest = torch.full(y.shape, torch.inf, dtype=x.dtype, device=x.device)
    for number in range(classes):
        towards = -true
        towards[:, number] += 1
        logits, grad = network.both(x, towards)
        grad, value = grad.to(x.dtype).nan_to_num(nan=0.0), (logits * towards).sum(1)
        reach = value.abs() / (1e-12 + dual(grad, norm))
        reach = torch.where(y == number, 1e10, reach)
        if number == 0:
            gap, slope = value, grad
        closer = reach < nearest
        gap = torch.where(closer, value, gap)
        slope = torch.where(per_image(closer, x), grad, slope)
        nearest = torch.where(closer, reach, nearest)
    return gap, slope


def onto_plane(points: Tensor, slope: Tensor, offset: Tensor, norm: str, lo: float, hi: float) -> Tensor:
    """The smallest step from each point to a plane that stays in [lo, hi].

    Each pixel moves against the excess by ``min(t, room)`` in linf and by ``min(t |slope|, room)`` in l2,
    with one ``t`` for an image. What that adds up to is concave and piecewise linear in ``t``, so Newton
    steps from 0 never overshoot and end exactly at the plane: no pixels are sorted.

    Args:
        points: [N, C, H, W] in [lo, hi].
        slope: [N, C, H, W] normal vector of the plane.
        offset: [N]; the plane is where ``(slope * x).sum() == offset``.
        norm: ``"linf"`` or ``"l2"``, of the step.
        lo, hi: range of a pixel.

    Returns:
        [N, C, H, W] steps; where [lo, hi] does not reach the plane, that to its nearest corner.
    """
    x, w = points.flatten(1), slope.flatten(1)
    excess = (w * x).sum(1) - offset
    w = torch.where(excess[:, None] >= 0, w, -w)
    need, pull = excess.abs(), w.abs()
    room = torch.where(w > 0, x - lo, hi - x).masked_fill(w == 0, 0.0)
    rate = torch.ones_like(pull) if norm == "linf" else pull
    force, nothing = pull * rate, torch.zeros((), dtype=pull.dtype, device=pull.device)
    t = torch.zeros_like(need)
    for _ in range(_NEWTON_STEPS):
        moves = t[:, None] * rate
        rising = torch.where(moves < room, force, nothing).sum(1)
        missing = need - torch.linalg.vecdot(pull, torch.minimum(moves, room))
        further = torch.where((rising > 0) & (missing > 0), t + missing / rising, t)
        if x.is_cpu and bool((further <= t).all()):
            break
        t = further
    size = torch.minimum(t[:, None] * rate, room)
    return torch.where(w > 0, -size, size).view_as(points)


def dual(grad: Tensor, norm: str) -> Tensor:
    """The dual norm [N] of gradients [N, C, H, W]: how far a step of length 1 in ``norm`` moves the value."""
    flat = grad.flatten(1)
    return flat.abs().sum(1) if norm == "linf" else flat.square().sum(1).sqrt()


@operator(
    "network_walk_(Tensor(a!) adv, Tensor clean, Tensor y, Tensor? targets, Tensor plan, Tensor weights,"
    " int classes, str norm, int steps, float eps, float lo, float hi) -> ()",
    fake=lambda *_: None,
)
def _walk_reference(
    adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None, plan: Tensor, weights: Tensor,
    classes: int, norm: str, steps: int, eps: float, lo: float, hi: float,
) -> None:  # fmt: skip
    network = SmallReference(plan, weights, classes)
    walk(network, adv, clean, y, targets, norm=norm, eps=eps, steps=steps, lo=lo, hi=hi)


def network_walk_(
    adv: Tensor,
    clean: Tensor,
    y: Tensor,
    *,
    targets: Tensor | None,
    plan: Tensor,
    weights: Tensor,
    classes: int,
    norm: str = "linf",
    steps: int,
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """All steps of the fast adaptive boundary attack (Croce & Hein 2020, arXiv:1907.02044), in place.

    An image is done at the first misclassified point of the ball. No image's result depends on another image.

    Args:
        adv: [N, C, H, W] starts, float32 or float64; becomes that point, or ``clean`` where there is none.
        clean: centre of the ball; shape and dtype of ``adv``.
        y: [N] int64 true classes.
        targets: [N] int64 classes to walk to; None walks to the one whose boundary is nearest.
        plan, weights, classes: as in `bat_fast.ops.network.network_gradient`.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of steps, >= 1.
        eps, lo, hi: radius of the ball, and range of a pixel.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError, TypeError, RuntimeError: an argument or the plan does not fit.
    """
    logits = check_search(adv, clean, y, plan, weights, classes, norm, eps, lo, hi)
    check_number("steps", steps, 1)
    if targets is not None:
        check_labels("targets", targets, logits)
    torch.ops.bat_fast.network_walk_(adv, clean, y, targets, plan, weights, classes, norm, steps, eps, lo, hi)
    return changed(adv)
