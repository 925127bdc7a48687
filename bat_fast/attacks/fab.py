"""Fast adaptive boundary attack: walks along the boundary of the class towards the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast._logits import missed
from bat_fast.attacks.draws import Draws
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.search import Search, length
from bat_fast.attacks.step import per_image

_SHARE = 0.1  # at most, of the point that starts from the clean image
_OVERSHOOT = 1.05  # of a projection, so that it ends behind the boundary
_BACK = 0.9  # of the way from the clean image, once behind the boundary
_NEWTON_STEPS = 20  # a CPU looks whether fewer are enough; 3072 random pixels took 13 at most


@dataclass(frozen=True)
class Walk:
    """One run, with all that it reads beside network and tensors (see `bat_fast.attacks.engine.Loop`).

    Args:
        norm, eps, steps, lo, hi: as in `FAB`.
    """

    norm: str
    eps: float
    steps: int
    lo: float
    hi: float

    def __call__(
        self, network: AttackedModel, *, adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None
    ) -> None:
        """Move ``adv`` [N, C, H, W] from the start to the nearest misclassified point of the ball it meets.

        Where there is none it becomes ``clean``. Reads nothing on the host of a GPU.
        """
        x = adv.clone()
        nearest = torch.full(y.shape, torch.inf, dtype=x.dtype, device=x.device)
        adv.copy_(clean)
        known: Tensor | None = network.forward(x)  # the logits at x, where the network has just been there
        assert known is not None
        classes = known.shape[1]
        for _ in range(self.steps):
            gap, slope = self._plane(network, known, classes, x, y, targets)
            offset = (slope * x).flatten(1).sum(1) - gap
            points = torch.cat([x, clean])
            plane = torch.cat([slope, slope]), torch.cat([offset, offset])
            here, there = onto_plane(points, *plane, self.norm, self.lo, self.hi).chunk(2)
            near, far = (length(step, self.norm).clamp(min=1e-8) for step in (here, there))
            share = per_image((near / (near + far)).clamp(0.0, _SHARE), x)
            x = (x + _OVERSHOOT * here) * (1 - share) + (clean + there * _OVERSHOOT) * share
            x = x.clamp(self.lo, self.hi)
            known = network.forward(x)
            wrong = missed(known, y)
            if x.is_cpu and not bool(wrong.any()):
                continue
            known = None
            away = length(x - clean, self.norm)
            closer = wrong & (away < nearest) & (away <= self.eps)
            adv.copy_(torch.where(per_image(closer, x), x, adv))
            nearest = torch.where(closer, away, nearest)
            x = torch.where(per_image(wrong, x), clean + (x - clean) * _BACK, x)
            if x.is_cpu and bool(nearest.isfinite().all()):
                break

    def _plane(
        self,
        network: AttackedModel,
        known: Tensor | None,
        classes: int,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
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
            reach = value.abs() / (1e-12 + dual(grad, self.norm))
            reach = torch.where(y == number, 1e10, reach)
            if number == 0:
                gap, slope = value, grad
            closer = reach < nearest
            gap = torch.where(closer, value, gap)
            slope = torch.where(per_image(closer, x), grad, slope)
            nearest = torch.where(closer, reach, nearest)
        return gap, slope


class FAB(Search):
    """The fast adaptive boundary attack (Croce & Hein 2020, arXiv:1907.02044), as in the official AutoAttack.

    It looks for the nearest misclassified image, and an image is broken where that is within ``eps``. The
    first run of each target starts at the image itself, so with one restart nothing is random. With
    ``targets=0`` it walks to whichever boundary is nearest, which takes as many gradients a step as there are
    classes.

    Args:
        steps: projections a run, >= 1.
        model, eps, targets, restarts, norm, precision, engine, seed, replay, lo, hi: as in
            `bat_fast.attacks.search.Search`.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    _shown = ("eps", "norm", "targets", "restarts", "seed")

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        *,
        targets: int = 9,
        steps: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(model, eps, targets=targets, **options)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
        self.steps = steps

    def attempt(self, problem: Problem, draws: Draws, rows: Tensor, number: int) -> Tensor:
        """One run, from the image itself; a restart, from a random point half as far as eps."""
        clean = problem.clean
        adv = clean.clone()
        if number % self.restarts:
            adv = self.random_point(clean, draws, rows, f"fab {number}", 0.5)
        loop = Walk(self.norm, self.eps, self.steps, self.lo, self.hi)
        self.iterate(loop, adv=adv, clean=clean, y=problem.y, targets=problem.targets)
        return adv


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
