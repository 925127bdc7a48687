"""Projected gradient descent, the inner maximisation of adversarial training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._checks import choice
from bat_fast._logits import logits_of, succeeded
from bat_fast.attacks.attack import Attack
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.goal import Best, Goal
from bat_fast.attacks.loss import AttackLoss, LossFunction
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.step import Step, default_step_size, numbers
from bat_fast.attacks.targets import random_targets

_MOST_RESTARTS = 255
_APART = 1 << 24  # draws between the starts of one call: no training has so many epochs


@dataclass(frozen=True)
class Climb:
    """The one PGD loop of this project, with all that it reads beside network and tensors.

    Engines keep a captured CUDA graph under the loop that was captured, and equal loops share it. So whatever
    a step depends on is a field of this class: the loop has nothing else to read it from.

    Args:
        loss, soft_weight: as in `bat_fast.attacks.AttackLoss`.
        steps: number of steps.
        step: what moves the images.
        keep: as in `PGD`.
    """

    loss: str | LossFunction
    soft_weight: float
    steps: int
    step: Step
    keep: str = "last"

    def __call__(
        self,
        network: AttackedModel,
        *,
        adv: Tensor,
        clean: Tensor,
        eps: Tensor | None = None,
        step_size: Tensor | None = None,
        **given: Any,
    ) -> None:
        """Move ``adv`` in place. Reads nothing on the host.

        Args:
            network: what an engine makes of the model.
            adv: [N, C, H, W] images to move.
            clean: [N, C, H, W] centre of the ball.
            eps, step_size: [N] of each image, or None.
            given: ``y``, ``targets``, ``reference`` and ``soft`` of `bat_fast.attacks.goal.Goal.of`.
        """
        goal = Goal.of(self.loss, self.soft_weight, network, clean, **given)
        own = {"eps": eps, "step_size": step_size}
        plain = self.keep == "last" and eps is None and step_size is None
        if plain and network.climb is not None and isinstance(self.loss, str):
            limits = self.step.limits(clean)
            network.climb(adv, clean, steps=self.steps, norm=self.step.norm, **limits, **goal.arguments)
            return
        best = Best(adv) if self.keep == "best" else None
        for _ in range(self.steps):
            grad, _ = goal.gradient(network, adv, best)
            self.step(adv, grad, clean, **own)
        if best is not None:
            goal.look(network, adv, best)
            adv.copy_(best.images)


class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018).

    Args:
        steps: number of gradient steps, >= 0.
        restarts: number of runs, each from another random start, >= 1. The first misclassified image counts,
            where the caller names ``targets`` the first that reaches its own, and where there is none, the
            one with the largest loss.
        any_step: return the first image of each run that counts, be it its start or after any of its steps,
            rather than its last image; costs a forward pass more in each step. `broke_at` then says when.
        targeted: where the caller names no ``targets``, move towards a random other class.
        project: keep every step inside the ball; False keeps it inside [lo, hi] only (N-FGSM).
        eps, step_size: for all images, or a tensor [N] with a number for each image of the batch. The kernels
            of a step take one number: with a tensor, a step runs as operators of torch, and a small network
            on a CPU step by step.
        keep: ``"last"``: where the steps end; ``"best"``: of all points of the path the first that succeeds
            (another class than ``y``, or the target), and where none does, the one with the largest loss.
            That costs one more pass forward, and a small network on a CPU runs step by step.
        model, norm, loss, random_start, bn_mode, precision, engine, seed, start_scale,
            bn_updates, clip_start, lo, hi: as in `bat_fast.attacks.Attack`.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.

    Example:
        >>> attack = PGD(model, eps=8 / 255, step_size=2 / 255, steps=10)
        >>> x_adv = attack(x, y)
    """

    _shown = ("eps", "step_size", "steps", *Attack._shown[2:])

    def __init__(
        self,
        model: nn.Module,
        eps: float | str | Tensor = 8 / 255,
        step_size: float | str | Tensor | None = None,
        steps: int = 10,
        norm: str = "linf",
        loss: str | LossFunction = "ce",
        random_start: bool | str = True,
        bn_mode: str = "eval",
        precision: str | None = None,
        engine: str = "auto",
        seed: int = 0,
        *,
        restarts: int = 1,
        any_step: bool = False,
        targeted: bool = False,
        start_scale: float = 1.0,
        bn_updates: bool | str = False,
        clip_start: bool = True,
        project: bool = True,
        keep: str = "last",
        lo: float = 0.0,
        hi: float = 1.0,
    ) -> None:
        kind = type(self).__name__
        given = {"eps": numbers("eps", eps, kind)}
        step = default_step_size(given["eps"]) if step_size is None else step_size
        given["step_size"] = numbers("step_size", step, kind)
        self.each = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        """The settings that are [N] numbers; the attribute of that name is then the largest."""
        most = {name: float(each.max()) if isinstance(each, Tensor) else each for name, each in given.items()}
        super().__init__(
            model, most["eps"], step_size=most["step_size"], norm=norm, loss=loss,
            random_start=random_start, bn_mode=bn_mode, precision=precision, engine=engine, seed=seed,
            start_scale=start_scale, bn_updates=bn_updates, clip_start=clip_start, lo=lo, hi=hi,
        )  # fmt: skip
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps must be an integer >= 0, got {steps!r}")
        if not isinstance(restarts, int) or not 1 <= restarts <= _MOST_RESTARTS:
            raise ValueError(f"restarts must be an integer in [1, {_MOST_RESTARTS}], got {restarts!r}")
        if restarts > 1 and not random_start:
            raise ValueError("restarts: without random_start all runs are the same one")
        self.steps, self.restarts = steps, restarts
        self.any_step, self.targeted, self.project = bool(any_step), bool(targeted), bool(project)
        self.keep = choice("keep", keep, ("last", "best"))
        if self.any_step and self.keep == "best":
            raise ValueError("any_step returns the first success of each run, so leave keep out")
        self.broke_at: Tensor | None = None
        """After a call with ``any_step``: [N] int64, the steps after which each image first counted as broken
        in the run that broke it, 0 at the start, and -1 where none did."""

    @property
    def step(self) -> Step:
        """The step with the settings of the moment: call it with (adv, grad, clean)."""
        return replace(super().step, project=self.project)

    def loop_for(self, objective: AttackLoss) -> Climb:
        """The loop on ``objective`` with the settings of the moment."""
        return Climb(objective.loss, objective.soft_weight, self.steps, self.step, self.keep)

    def radius_of(self, clean: Tensor) -> float | Tensor:
        """The radius of the ball around ``clean`` [N, C, H, W], or that of each image, [N]."""
        return self._each(clean).get("eps", self.eps)

    def _each(self, clean: Tensor) -> dict[str, Tensor]:
        """The settings of each image, like ``clean``; ValueError for another number of images."""
        for name, value in self.each.items():
            if len(value) != len(clean):
                raise ValueError(f"{name} must be a number, or [N] = [{len(clean)}], got {list(value.shape)}")
        return {name: value.to(clean) for name, value in self.each.items()}

    def run(self, adv: Tensor, problem: Problem) -> None:
        """Take all steps of PGD, once or from several starts."""
        named = problem.targets
        if self.targeted and problem.targets is None:
            problem = replace(problem, targets=self._aims(problem))
        first, known = 1, problem.progress.found("starts")
        if known is None:
            self.broke_at = self._climb(adv, problem, named)
            if self.restarts == 1:
                return
            best = self._score(adv, problem, named)
            problem.progress.keep("starts", first, adv=adv, best=best, broke_at=self.broke_at)
        else:
            first, best, at = int(known["number"]), known["best"].to(adv.device), known.get("broke_at")
            self.broke_at = None if at is None else at.to(adv.device)
            adv.copy_(known["adv"])
        for number in range(first, self.restarts):
            if bool((best == torch.inf).all()):
                return
            other = self.start(problem.clean, problem.index, problem.draw + number * _APART)
            broke_at = self._climb(other, problem, named)
            score = self._score(other, problem, named)
            better = score > best
            adv[better], best[better] = other[better], score[better]
            if self.broke_at is not None and broke_at is not None:
                self.broke_at[better] = broke_at[better]
            problem.progress.keep("starts", number + 1, adv=adv, best=best, broke_at=self.broke_at)

    def _climb(self, adv: Tensor, problem: Problem, named: Tensor | None) -> Tensor | None:
        """One run; with ``any_step`` also when each image broke, [N]."""
        loop, each = self.loop_for(problem.objective), self._each(problem.clean)
        if not self.any_step:
            if self.steps:
                self.iterate(loop, adv=adv, **problem.tensors, **each)
            return None
        first, broke_at = adv.clone(), torch.full_like(problem.y, -1)
        for done in range(self.steps + 1):
            if done:
                self.iterate(replace(loop, steps=1), adv=adv, **problem.tensors, **each)
            broken = succeeded(logits_of(self.model(adv)), problem.y, named) & (broke_at < 0)
            first[broken], broke_at[broken] = adv[broken], done
            if bool((broke_at >= 0).all()):
                break
        adv.copy_(torch.where((broke_at >= 0).view(-1, 1, 1, 1), first, adv))
        return broke_at

    def _aims(self, problem: Problem) -> Tensor:
        """A random other class [N] for each image."""
        classes, index = logits_of(self.model(problem.clean[:1])).shape[1], problem.index
        index = torch.arange(len(problem.y), device=problem.y.device) if index is None else index
        return random_targets(problem.y, index, classes, seed=self.seed, draw=problem.draw)

    def _score(self, adv: Tensor, problem: Problem, named: Tensor | None) -> Tensor:
        """The row losses [N] at ``adv``, infinite where it counts."""
        objective, target = problem.objective, problem.y if problem.targets is None else problem.targets
        logits, reference = logits_of(self.model(adv)), objective.reference
        if reference is None and objective.loss in ("kl", "kl+te"):
            reference = logits_of(self.model(problem.clean))
        targeted = problem.targets is not None
        goal = Goal(
            objective.loss, objective.soft_weight, target, problem.y, targeted, reference, objective.soft
        )
        return goal.rows(logits)[1].masked_fill(succeeded(logits, problem.y, named), torch.inf)
