"""Projected gradient descent, the inner maximisation of adversarial training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast import ops
from bat_fast.attacks.attack import Attack, Problem
from bat_fast.attacks.engine import Network, SmallNetwork
from bat_fast.attacks.step import Step

_FP16_SCALE = 1024.0  # of gradients that float16 would round to 0; neither sign nor direction depends on it


class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018).

    Args:
        steps: number of gradient steps, >= 0.
        project: keep every step inside the ball; False keeps it inside [lo, hi] only (N-FGSM).
        model, eps, step_size, norm, loss, random_start, bn_mode, precision, engine, seed, start_scale, lo,
            hi: as in `bat_fast.attacks.Attack`.

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
        eps: float = 8 / 255,
        step_size: float | None = None,
        steps: int = 10,
        norm: str = "linf",
        loss: str = "ce",
        random_start: bool | str = True,
        bn_mode: str = "eval",
        precision: str | None = None,
        engine: str = "auto",
        seed: int = 0,
        *,
        start_scale: float = 1.0,
        project: bool = True,
        lo: float = 0.0,
        hi: float = 1.0,
    ) -> None:
        super().__init__(
            model, eps, step_size=step_size, norm=norm, loss=loss, random_start=random_start, bn_mode=bn_mode,
            precision=precision, engine=engine, seed=seed, start_scale=start_scale, lo=lo, hi=hi,
        )  # fmt: skip
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps must be an integer >= 0, got {steps!r}")
        self.steps = steps
        self.project = bool(project)

    @property
    def step(self) -> Step:
        """The step with the settings of the moment: call it with (adv, grad, clean)."""
        return replace(super().step, project=self.project)

    def run(self, adv: Tensor, problem: Problem) -> None:
        """Take all steps."""
        if not self.steps:
            return
        objective = problem.objective
        self.iterate(
            partial(self._steps, objective.loss, objective.soft_weight),
            (objective.loss, objective.soft_weight, self.steps, self.step),
            adv=adv,
            clean=problem.clean,
            y=problem.y,
            targets=problem.targets,
            reference=objective.reference,
            soft=objective.soft,
        )

    def _steps(
        self,
        loss: str,
        soft_weight: float,
        network: Network,
        *,
        adv: Tensor,
        clean: Tensor,
        y: Tensor,
        targets: Tensor | None,
        reference: Tensor | None,
        soft: Tensor | None,
    ) -> None:
        """The PGD loop of this project: moves ``adv`` in place. Reads nothing on the host."""
        if reference is None and loss.startswith("kl"):
            reference = network.forward(clean)
        goal: dict[str, Any] = {
            "loss": loss, "reference": reference, "soft": soft, "soft_weight": soft_weight,
            "targeted": targets is not None, "label": y,
        }  # fmt: skip
        target = y if targets is None else targets
        if isinstance(network, SmallNetwork):
            how = {"norm": self.norm, "steps": self.steps, **self.step.limits(clean)}
            network.climb(adv, clean, target, **goal, **how)
            return
        for _ in range(self.steps):
            logits = network.forward(adv)
            grad_logits, _ = ops.attack_grad(_kernel_dtype(logits), target, **goal)
            if logits.dtype == torch.float16:
                grad_logits.mul_(_FP16_SCALE)
            self.step(adv, network.backward(grad_logits.to(logits.dtype)), clean)


def _kernel_dtype(logits: Tensor) -> Tensor:
    """Detached logits in a dtype that the row kernels of the device take."""
    return logits.detach().float() if logits.is_cpu and logits.itemsize == 2 else logits.detach()
