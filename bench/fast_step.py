"""The step of `bat_fast.train` with BAT, without its bookkeeping."""

from __future__ import annotations

import torch
from by_hand import ALPHA, BETA, STEPS, TEMPERATURE
from torch import Tensor, nn

from bat_fast import PGD, Batch, methods
from bat_fast.train.learner import Autocast


class FastStep:
    """A call trains ``model`` on a batch.

    Args:
        model: learns in train mode.
        optimizer: of its parameters.
        eps: radius of the attack in pixels; its steps are a quarter of that.
        precision: of the attack.
        both: the weights learn in bf16 too (``optim.precision``).
        engine: of the attack.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        eps: float,
        precision: str | None = None,
        both: bool = False,
        engine: str = "auto",
    ) -> None:
        self.model, self.optimizer = model.train(), optimizer
        self.learner = Autocast(model) if both else model
        self.attack = PGD(model, eps=eps, step_size=eps / 4, steps=STEPS, precision=precision, engine=engine)
        self.method = methods.create("bat", alpha=ALPHA, beta=BETA, temperature=TEMPERATURE)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """One update on images [N, C, H, W] with labels [N]."""
        batch = Batch(x, y, torch.arange(len(x), device=x.device))
        x_adv = self.attack(x, y, objective=self.method.attack_loss(self.model, batch, 0))
        loss = self.method(self.learner, batch, x_adv, 0).total
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
