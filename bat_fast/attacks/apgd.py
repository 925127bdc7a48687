"""AutoPGD: projected gradient ascent which halves the steps of each image by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._checks import choice
from bat_fast._logits import missed
from bat_fast.attacks.draws import Draws
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.goal import Goal
from bat_fast.attacks.official import OfficialGoal
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.search import Search, bounds, length, unit
from bat_fast.attacks.step import per_image

_RISING = 0.75  # the share of steps that must raise the loss between two checks
_INERTIA = 0.75  # of a step along the gradient; the rest is the step before


@dataclass(frozen=True)
class Ascent:
    """One run, with all that it reads beside network and tensors (see `bat_fast.attacks.engine.Loop`).

    Args:
        loss, norm, eps, steps, eot, lo, hi: as in `APGD`.
        official: climb the official expressions of the loss.
    """

    loss: str
    norm: str
    eps: float
    steps: int
    eot: int
    lo: float
    hi: float
    official: bool

    def __call__(
        self, network: AttackedModel, *, adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None
    ) -> None:
        """Move ``adv`` [N, C, H, W] from the start to a misclassified image, or to ``clean``.

        Reads nothing on the host of a GPU.
        """
        goal = (OfficialGoal if self.official else Goal).of(
            self.loss, 0.0, network, clean, y=y, targets=targets, reference=None, soft=None
        )
        limits = bounds(clean, self.eps, self.lo, self.hi)
        x = old = best = found = adv.clone()
        logits, loss, grad = self._look(network, goal, x)
        broken, best_grad, best_loss, checked = missed(logits, y), grad, loss, loss
        step = torch.full_like(loss, 2.0 * self.eps)
        halved = torch.ones_like(broken)
        last = rises = torch.zeros_like(loss)  # so the first loss is compared with 0, as in the official code
        checks = set(checkpoints(self.steps))
        since = 0
        for number in range(1, self.steps + 1):
            drift, old = x - old, x
            share = 1.0 if number == 1 else _INERTIA
            x = self._move(x, grad, drift, per_image(step, x), share, clean, limits)
            logits, loss, grad = self._look(network, goal, x, last=number == self.steps)
            wrong = missed(logits, y)
            broken = broken | wrong
            found = torch.where(per_image(wrong, x), x, found)
            if x.is_cpu and bool(broken.all()):
                break
            better = loss > best_loss
            wide = per_image(better, x)
            best, best_grad = torch.where(wide, x, best), torch.where(wide, grad, best_grad)
            best_loss = torch.where(better, loss, best_loss)
            rises, last, since = rises + (loss > last), loss, since + 1
            if number in checks:
                halved = (rises <= _RISING * since) | (~halved & (checked >= best_loss))
                step, wide = torch.where(halved, step / 2, step), per_image(halved, x)
                x, grad = torch.where(wide, best, x), torch.where(wide, best_grad, grad)
                checked, rises, since = best_loss, torch.zeros_like(rises), 0
        adv.copy_(torch.where(per_image(broken, adv), found, clean))

    def _look(
        self, network: AttackedModel, goal: Goal, x: Tensor, last: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, row losses and gradient at ``x``, its mean over ``eot`` passes; none for the ``last``."""
        total: Tensor | None = None
        for _ in range(self.eot):
            logits = network.forward(x)
            grad_logits, loss = _defined(goal, logits.shape[1]).rows(logits)
            if not last:
                grad = network.backward(grad_logits).to(x.dtype).nan_to_num(nan=0.0)
                total = grad if total is None else total + grad
        return logits, loss, x if total is None else total / self.eot if self.eot > 1 else total

    def _move(
        self,
        x: Tensor,
        grad: Tensor,
        drift: Tensor,
        step: Tensor,
        share: float,
        clean: Tensor,
        limits: tuple[Tensor, Tensor],
    ) -> Tensor:
        """A step along ``grad``, and of that ``share``, with the rest along ``drift``; both projected."""
        if self.norm == "linf":
            goal = (x + step * torch.sign(grad)).clamp(*limits)
            return (x + (goal - x) * share + drift * (1 - share)).clamp(*limits)
        goal = self._into_ball(x + step * unit(grad, "l2"), clean)
        return self._into_ball(x + (goal - x) * share + drift * (1 - share), clean)

    def _into_ball(self, x: Tensor, clean: Tensor) -> Tensor:
        away = x - clean
        radius = length(away, "l2").clamp(max=self.eps)
        return (clean + unit(away, "l2") * per_image(radius, x)).clamp(self.lo, self.hi)


class APGD(Search):
    """AutoPGD (Croce & Hein 2020, arXiv:2003.01690), with the constants of the official AutoAttack.

    The first step is 2 eps; it is halved for each image by itself, at checkpoints, where the loss rose in no
    more than three quarters of the steps or is no better than at the checkpoint before. Any misclassified
    point of the path counts, not the last one alone.

    Args:
        loss: ``"ce"``, ``"dlr"`` or ``"margin"``. With less than 4 classes (3 for an attack away from ``y``)
            ``dlr`` is not defined, and ``margin`` is climbed in its place.
        steps: gradient steps a run, >= 1.
        eot: passes through a random model whose gradients are averaged in each step.
        model, eps, targets, restarts, norm, precision, engine, seed, replay, lo, hi: as in
            `bat_fast.attacks.search.Search`.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.

    Example:
        >>> x_adv = APGD(model, eps=8 / 255, loss="dlr", targets=9)(x, y)
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        *,
        loss: str = "ce",
        steps: int = 100,
        eot: int = 1,
        **options: Any,
    ) -> None:
        self.goal: str = choice("loss", loss, ("ce", "dlr", "margin"))
        super().__init__(model, eps, loss=loss, **options)
        for name, value in (("steps", steps), ("eot", eot)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        self.steps, self.eot = steps, eot

    def attempt(self, problem: Problem, draws: Draws, rows: Tensor, number: int) -> Tensor:
        """One run from a random point of the surface of the ball."""
        clean = problem.clean
        adv = self.random_point(clean, draws, rows, f"apgd {self.loss} {number}")
        loop = Ascent(self.goal, self.norm, self.eps, self.steps, self.eot, self.lo, self.hi, self.replay)
        self.iterate(loop, adv=adv, clean=clean, y=problem.y, targets=problem.targets)
        return adv


def _defined(goal: Goal, classes: int) -> Goal:
    """``goal``, or ``margin`` in its place where there are too few classes for ``dlr``."""
    few = goal.loss == "dlr" and classes < (4 if goal.targeted else 3)
    return replace(goal, loss="margin") if few else goal


def checkpoints(steps: int) -> list[int]:
    """The numbers of steps, from 1, after which they may be halved: 22, 41, 57, 70, 80, ... of 100."""
    window, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found = [window]
    while found[-1] < steps:
        window = max(window - shrink, least)
        found.append(found[-1] + window)
    return [number for number in found if number <= steps]
