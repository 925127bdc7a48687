"""A model, some images and a ball, with what the checks ask about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import ops
from bat_fast._logits import logits_of, missed
from bat_fast.attacks import APGD, PGD, default_step_size
from bat_fast.attacks.search import exact_logits

FEW = 3  # images: what two runs of one attack may differ by


class Trial:
    """A model, images and a ball, with what several checks ask for."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str, seed: int) -> None:
        self.model, self.x, self.y, self.eps, self.norm, self.seed = model, x.detach(), y, eps, norm, seed
        logits_of(model(self.x), len(self.x))  # raises where they have another shape, or one class alone
        self.logits = exact_logits(model, self.x)
        self.clean = self.right(self.x)
        with torch.enable_grad():
            self.has_gradient = logits_of(model(self.x[:2].clone().requires_grad_())).requires_grad
        self.few = FEW / len(self.y)

    def right(self, x: Tensor) -> Tensor:
        """[N] bool."""
        return ~missed(exact_logits(self.model, x), self.y)

    def near(self, draw: int, scale: float = 1.0) -> Tensor:
        """A random point of the ball around each image."""
        return ops.random_start(self.x, eps=self.eps * scale, norm=self.norm, seed=self.seed, draw=draw)

    def losses(self, x: Tensor) -> Tensor:
        """Cross entropy [N]."""
        return F.cross_entropy(exact_logits(self.model, x), self.y, reduction="none")

    def survives(self, attack: Any) -> Tensor:
        """[N] bool: right without ``attack`` and under it."""
        return self.clean & self.right(attack(self.x, self.y, draw=0))

    def pgd(self, steps: int = 20, model: Any = None, eps: float | None = None) -> Tensor:
        """[N] bool: right under PGD."""
        attack = PGD(
            model or self.model, self.eps, steps=steps, norm=self.norm, seed=self.seed, engine="eager"
        )
        if eps is not None:  # beyond what anybody may ask for, where all grey is in the ball
            attack.eps, attack.step_size = eps, default_step_size(eps)
        return self.survives(attack)

    def apgd(self, loss: str, targets: int) -> Tensor:
        """[N] bool: right under APGD."""
        return self.survives(APGD(self.model, self.eps, loss=loss, targets=targets, **self.how))

    @property
    def how(self) -> dict[str, Any]:
        """Options of all attacks."""
        return {"norm": self.norm, "seed": self.seed, "engine": "eager"}


def share(values: Tensor) -> float:
    return values.double().mean().item()


def apart(one: Tensor, other: Tensor) -> float:
    """The largest distance of two rows of logits that are scaled to length 1."""
    away = F.normalize(one, dim=1) - F.normalize(other, dim=1)
    return float(away.norm(dim=1).max())
