"""Adversarial training with PGD (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bat_fast import ops
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True)
class PgdAt(Method):
    """``mean_i CE(f(x'_i), y_i)``, where ``x'`` climbs the same cross-entropy inside the ball."""

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss`` and ``robust_acc``."""
        logits = model(x_adv)
        loss, _ = ops.bat_loss(logits, batch.y, alpha=0.0)
        return outcome(loss, logits, batch.y, accuracy="robust_acc")
