"""An attack to copy: bat_fast/attacks/NAME.py, and ``bat-fast eval RUN --attack NAME20`` judges with it.

Here: PGD with momentum (Dong et al. 2018, arXiv:1710.06081).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.attacks.attack import Attack
from bat_fast.attacks.engine import AttackedModel
from bat_fast.attacks.goal import Goal
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.step import Step

_TINY = 1e-12  # an image without a gradient stays where it is


@dataclass(frozen=True)
class Loop:
    """All that the steps depend on, but for the model and the tensors.

    An engine may keep what it captured under this value, so the loop reads nothing from elsewhere.
    """

    loss: str
    soft_weight: float
    steps: int
    step: Step
    decay: float

    def __call__(self, network: AttackedModel, *, adv: Tensor, clean: Tensor, **given: Any) -> None:
        """Move ``adv`` [N, C, H, W] in place. No number is read on the host, which would wait for a GPU."""
        goal = Goal.of(self.loss, self.soft_weight, network, clean, **given)
        momentum = torch.zeros_like(adv)
        for _ in range(self.steps):
            grad, _ = goal.gradient(network, adv)
            size = grad.abs().mean((1, 2, 3), keepdim=True).clamp_min(_TINY)
            momentum = self.decay * momentum + grad / size
            self.step(adv, momentum, clean)  # with the projections


class Template(Attack):  # a module holds one kind of attack
    """PGD along an average of the gradients.

    Args:
        steps: number of gradient steps, >= 0.
        decay: of the average, >= 0; 0 is PGD.
        model, eps, options: as in `bat_fast.attacks.Attack`.
    """

    def __init__(
        self, model: nn.Module, eps: float = 8 / 255, *, steps: int = 10, decay: float = 1.0, **options: Any
    ) -> None:
        super().__init__(model, eps, **options)  # checks what all attacks share
        if steps < 0 or decay < 0:
            raise ValueError(f"steps and decay must be >= 0, got {steps} and {decay}")
        self.steps, self.decay = steps, decay

    def run(self, adv: Tensor, problem: Problem) -> None:
        """Move ``adv`` from the start in place; the model is held still meanwhile, and all is checked."""
        objective = problem.objective
        loop = Loop(objective.loss, objective.soft_weight, self.steps, self.step, self.decay)
        self.iterate(loop, adv=adv, **problem.tensors)  # the engine decides how the model runs
