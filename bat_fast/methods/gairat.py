"""GAIRAT: geometry-aware instance-reweighted adversarial training (Zhang et al. 2021, arXiv:2010.01736)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least, choice
from bat_fast.methods.outcome import outcome


@dataclass(kw_only=True)
class Gairat(Method):
    """What the attack breaks in few steps counts most: the opposite of `bat_fast.methods.bat`.

    With kappa_i, the number of the K steps at whose beginning the image was still classified rightly::

        s_i  = shift + 5 (K // 2 - kappa_i) / (K // 2)
        w_i  = (1 + tanh s_i) / 2,  or sigmoid(s_i),  or (K + 1 - kappa_i) / (K + 1)
        loss = mean_i w_i CE(f(x'_i), y_i) / mean_i w_i,  and w_i = 1 before the epoch ``start``

    Source of the formulas: zjfheart/Geometry-aware-Instance-reweighted-Adversarial-Training, GAIR.py, whose
    Lambda is ``shift`` here. It attacks in eval mode. The steps are counted as they are made, so the attack
    runs on the plain model (``attack.engine: eager``).
    """

    shift: float = -1.0
    """Lambda: lower values weigh fewer samples."""
    function: Literal["tanh", "sigmoid", "discrete"] = "tanh"
    """From the number of steps to the weight."""
    start: int = 60
    """Epoch, counted from 0, in which the weights begin; 60 of 120 in the published code."""

    def __post_init__(self) -> None:
        choice("gairat.function", self.function, ("tanh", "sigmoid", "discrete"))
        at_least("gairat.start", self.start, 0)
        self._steps = 10
        self._kappa: Tensor | None = None

    def prepare(self, num_samples: int, num_classes: int, device: str) -> None:
        """Allocate the counts."""
        self._kappa = torch.zeros(num_samples, dtype=torch.int64, device=device)

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """The plain engine, whose steps can be counted.

        Raises:
            ValueError: less than two steps.
        """
        if attack["steps"] < 2:
            raise ValueError(f"gairat counts steps: attack.steps must be at least 2, got {attack['steps']}")
        self._steps = attack["steps"]
        return {"engine": "eager"}

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss:
        """The cross-entropy, counting at each step what is still classified rightly."""
        counts = self._counts()
        counts[batch.index] = 0

        def counted(logits: Tensor, target: Tensor) -> Tensor:
            counts[batch.index] += (logits.detach().argmax(1) == batch.y).long()
            return F.cross_entropy(logits, target, reduction="none")

        return AttackLoss(counted)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``robust_acc``, ``steps_withstood`` (mean kappa)."""
        logits = model(x_adv)
        kappa = self._counts()[batch.index].to(logits.dtype)
        weights = self.weights(kappa) if epoch >= self.start else torch.ones_like(kappa)
        losses = F.cross_entropy(logits, batch.y, reduction="none")
        loss = (weights * losses).mean() / weights.mean()
        return outcome(loss, logits, batch.y, accuracy="robust_acc", steps_withstood=kappa.mean())

    def memory(self) -> Tensor:
        """The counts."""
        return self._counts()

    def weights(self, kappa: Tensor) -> Tensor:
        """w [N] of the numbers of steps kappa [N], before they are divided by their mean."""
        if self.function == "discrete":
            return (self._steps + 1 - kappa) / (self._steps + 1)
        half = self._steps // 2
        score = self.shift + 5 * (half - kappa) / half
        return score.sigmoid() if self.function == "sigmoid" else (1 + score.tanh()) / 2

    def _counts(self) -> Tensor:
        if self._kappa is None:
            raise RuntimeError("gairat: call prepare(samples, classes, device) before the first batch")
        return self._kappa
