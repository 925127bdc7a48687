"""AutoPGD: projected gradient ascent which halves the steps of each image by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from bat_fast._checks import choice
from bat_fast.attacks.draws import Draws
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.goal import Goal
from bat_fast.attacks.official import OfficialGoal
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.search import Search
from bat_fast.ops.ascent import ascend, network_ascent_


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
        how: dict[str, Any] = {
            "norm": self.norm, "eps": self.eps, "steps": self.steps, "lo": self.lo, "hi": self.hi
        }  # fmt: skip
        small = network.small
        if small is not None and self.eot == 1 and not self.official:
            loss = _defined(self.loss, targets is not None, small["classes"])
            network_ascent_(adv, clean, y, targets=targets, loss=loss, **how, **small)
            return
        goal = (OfficialGoal if self.official else Goal).of(
            self.loss, 0.0, network, clean, y=y, targets=targets, reference=None, soft=None
        )
        ascend(partial(self._look, network, goal), adv, clean, y, latest=self.official, **how)

    def _look(
        self, network: AttackedModel, goal: Goal, x: Tensor, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, row losses and gradient at ``x``, its mean over ``eot`` passes; none for the ``last``."""
        total: Tensor | None = None
        for _ in range(self.eot):
            logits = network.forward(x)
            loss_name = _defined(self.loss, goal.targeted, logits.shape[1])
            grad_logits, loss = replace(goal, loss=loss_name).rows(logits)
            if not last:
                grad = network.backward(grad_logits).to(x.dtype).nan_to_num(nan=0.0)
                total = grad if total is None else total + grad
        return logits, loss, x if total is None else total / self.eot if self.eot > 1 else total


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
        eps: float | str = 8 / 255,
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


def _defined(loss: str, targeted: bool, classes: int) -> str:
    """``loss``, or ``margin`` in its place where there are too few classes for ``dlr``."""
    return "margin" if loss == "dlr" and classes < (4 if targeted else 3) else loss
