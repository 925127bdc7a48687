"""What attacks share that look for a misclassified image: runs on those that are left, and a proof."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._logits import logits_of, missed
from bat_fast.attacks.attack import Attack
from bat_fast.attacks.draws import Draws, Keyed, Replayed
from bat_fast.attacks.problem import Problem
from bat_fast.ops._ball import unit

_SLACK = (
    1e-6  # of the radius and the range of a pixel, for rounding: float32 (x + eps) - x exceeds eps by 6e-8
)
_TOGETHER = 16  # survivors are filled up to a multiple: engines prepare for a number of images


class Search(Attack):
    """An attack that returns, for each image, a misclassified one of its ball, or the image itself.

    It runs several times, with one target or start after the other, and an image that is broken takes no part
    in the next run. An image is broken where a float32 pass of the model itself through the stored image says
    so: gives another class than ``y``, or no number, and the image lies in the ball and in [lo, hi].

    Args:
        targets: towards how many classes to move, one a run: those with the largest logits of the clean image
            after the largest. 0 moves away from ``y``.
        restarts: runs from another start, for each target.
        replay: repeat the official code number by number (pyautoattack 0.2.0): its generator, seeded for
            every call, its expressions and the model as it is. The result then depends on the batch.
        model, eps, norm, loss, precision, engine, seed, lo, hi: as in `bat_fast.attacks.Attack`.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    _shown: tuple[str, ...] = ("eps", "norm", "loss", "targets", "restarts", "seed")
    parameter_free = True

    def __init__(
        self,
        model: nn.Module,
        eps: float | str = 8 / 255,
        *,
        targets: int = 0,
        restarts: int = 1,
        norm: str = "linf",
        loss: str = "ce",
        precision: str | None = None,
        engine: str = "auto",
        seed: int = 0,
        replay: bool = False,
        lo: float = 0.0,
        hi: float = 1.0,
    ) -> None:
        super().__init__(
            model, eps, norm=norm, loss=loss, random_start=False, precision=precision,
            engine="eager" if replay else engine, seed=seed, lo=lo, hi=hi,
        )  # fmt: skip
        for name, value, least in (("targets", targets, 0), ("restarts", restarts, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        self.targets, self.restarts, self.replay = targets, restarts, replay

    def run(self, adv: Tensor, problem: Problem) -> None:
        """Run after run on the images that are left; ``adv`` [N, C, H, W] holds the clean images."""
        if problem.y.dtype != torch.int64:
            raise TypeError(f"y must hold int64 class numbers, got {problem.y.dtype}: convert with .long()")
        rows = torch.arange(len(adv), device=adv.device)
        draws = self._draws(problem, rows)
        ranked, count = self._ranked(problem)
        first, rows = self._resumed(adv, problem, draws, rows)
        for number in range(first, count * self.restarts):
            some = self._filled(rows, len(adv))
            part = _of(problem, some)
            if ranked is not None:
                part = replace(part, targets=ranked[some, number // self.restarts])
            found = self.attempt(part, draws, some, number)[: len(rows)]
            clean, y = problem.clean[rows], problem.y[rows]
            # What an attempt leaves as it was cannot be broken by it, and needs no proof.
            moved = (found != clean).flatten(1).any(1)
            broken = moved & self.proven(found, clean, y)
            adv[rows[broken]] = found[broken]
            rows = rows[~broken]
            if not len(rows):
                return
            here = {"rows": rows, "adv": adv[_others(rows, len(adv))], "chance": draws.state}
            problem.progress.keep("runs", number + 1, **here)

    def _resumed(self, adv: Tensor, problem: Problem, draws: Draws, rows: Tensor) -> tuple[int, Tensor]:
        """The number of the next run and which ``rows`` are left for it, after what was kept."""
        known = problem.progress.found("runs")
        if known is None:
            return 0, rows
        rows, draws.state = known["rows"].to(adv.device), known["chance"]
        adv[_others(rows, len(adv))] = known["adv"].to(adv.device)
        return int(known["number"]), rows

    @abstractmethod
    def attempt(self, problem: Problem, draws: Draws, rows: Tensor, number: int) -> Tensor:
        """One run.

        Args:
            problem: the images that are left, and what to climb on them; ``targets`` are those of the run.
            draws: the random numbers.
            rows: [n] int64 places of these images in the batch, by which ``draws`` knows them.
            number: of the run, from 0: target after target, and for each of them start after start.

        Returns:
            [n, C, H, W] images of the ball, misclassified where the attack found one; elsewhere anything.
        """

    def proven(self, adv: Tensor, clean: Tensor, y: Tensor) -> Tensor:
        """[N] bool: the model misclassifies ``adv`` in float32, which lies in the ball around ``clean``."""
        away = (adv.double() - clean.double()).flatten(1)
        size = away.abs().amax(1) if self.norm == "linf" else away.square().sum(1).sqrt()
        slack = _SLACK * max(1.0, self.eps)
        in_ball = size <= self.eps + slack
        in_range = ((adv >= self.lo - _SLACK) & (adv <= self.hi + _SLACK)).flatten(1).all(1)
        return missed(exact_logits(self.model, adv), y) & in_ball & in_range

    def random_point(self, clean: Tensor, draws: Draws, rows: Tensor, use: str, scale: float = 1.0) -> Tensor:
        """A point of the surface of the ball of radius ``scale`` eps around ``clean``, cut to [lo, hi].

        In linf one pixel is on the surface, as in the official code.
        """
        pixels = clean[0].numel()
        if self.norm == "linf":
            noise = 2 * draws.uniform(rows, 1, 0, pixels, use) - 1
        else:
            noise = draws.normal(rows, pixels, use)
        away = unit(noise.reshape(clean.shape), self.norm)
        return (clean + self.eps * scale * away).clamp(self.lo, self.hi)

    def _draws(self, problem: Problem, rows: Tensor) -> Draws:
        if self.replay:
            return Replayed(self.seed)
        return Keyed(self.seed, rows if problem.index is None else problem.index, problem.draw)

    def _ranked(self, problem: Problem) -> tuple[Tensor | None, int]:
        """[N, targets] classes to move towards, None where the caller says or there are none; how many."""
        if problem.targets is not None or not self.targets:
            return None, 1
        order = exact_logits(self.model, problem.clean).sort(dim=1)[1].flip(1)
        ranked = order[:, 1 : 1 + self.targets]
        return ranked, ranked.shape[1]

    def _filled(self, rows: Tensor, most: int) -> Tensor:
        """``rows``, with the first again up to a multiple of ``_TOGETHER``, but no more than ``most``."""
        if self.replay:
            return rows
        missing = min(-len(rows) % _TOGETHER, most - len(rows))
        return torch.cat([rows, rows[:1].expand(missing)])


def exact_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [N, K] float32 of ``x`` [N, C, H, W], by the model itself, whatever autocast is around."""
    with torch.autocast(x.device.type, enabled=False):
        logits = logits_of(model(x))
    return logits.float()


def _others(rows: Tensor, count: int) -> Tensor:
    """[count] bool: not among ``rows``."""
    return torch.ones(count, dtype=torch.bool, device=rows.device).index_fill(0, rows, False)


def _of(problem: Problem, rows: Tensor) -> Problem:
    """The problem of some of the images."""
    some: dict[str, Any] = {
        name: None if value is None else value[rows]
        for name in ("clean", "y", "targets", "index")
        for value in (getattr(problem, name),)
    }
    return replace(problem, **some)
