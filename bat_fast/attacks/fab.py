"""Fast adaptive boundary attack: walks along the boundary of the class towards the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bat_fast.attacks.draws import Draws
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.search import Search
from bat_fast.ops.walk import network_walk_, walk


@dataclass(frozen=True)
class Walk:
    """One run, with all that it reads beside network and tensors (see `bat_fast.attacks.engine.Loop`).

    Args:
        norm, eps, steps, lo, hi: as in `FAB`.
        official: take the nearest of the points it meets, not the first.
    """

    norm: str
    eps: float
    steps: int
    lo: float
    hi: float
    official: bool

    def __call__(
        self, network: AttackedModel, *, adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None
    ) -> None:
        """Move ``adv`` [N, C, H, W] from the start to a misclassified point of the ball, or to ``clean``."""
        how: dict[str, Any] = {
            "norm": self.norm, "eps": self.eps, "steps": self.steps, "lo": self.lo, "hi": self.hi
        }  # fmt: skip
        if network.small is not None and not self.official:
            network_walk_(adv, clean, y, targets=targets, **how, **network.small)
        else:
            walk(network, adv, clean, y, targets, nearest=self.official, **how)


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
    decides = ("loss",)

    def __init__(
        self,
        model: nn.Module,
        eps: float | str = 8 / 255,
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
        loop = Walk(self.norm, self.eps, self.steps, self.lo, self.hi, self.replay)
        self.iterate(loop, adv=adv, clean=clean, y=problem.y, targets=problem.targets)
        return adv
