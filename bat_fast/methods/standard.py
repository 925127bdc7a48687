"""Training on clean images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bat_fast import ops
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True)
class Standard(Method):
    """``mean_i CE(f(x_i), y_i)``: no attack. The baseline that shows what robustness costs."""

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> None:
        """None: the images stay clean."""

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss`` and ``clean_acc``."""
        logits = model(batch.x)
        loss, _ = ops.bat_loss(logits, batch.y, alpha=0.0)
        return outcome(loss, logits, batch.y, accuracy="clean_acc")
